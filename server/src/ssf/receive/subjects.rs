//! Whom a subject means here, by the rules of its receiver.
//!
//! A complex subject is read member by member, each by the first rule of that member and format. A simple one takes the
//! first rule of its format; of aliases the first that a rule reads counts.
//! Never does: guessing. What no rule reads means nobody.

use std::collections::BTreeSet;

use cardea_core::attempt::{ID_BYTES_MAX, NAME_BYTES_MAX};
use cardea_policy_store::engine::Uid;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::SmolStr;

use super::super::subject::{Simple, Subject};
use super::options::{Place, Rule, issuer_member};

/// What one identifier means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meant {
    Entity(Uid),
    Session(SmolStr),
    Device(SmolStr),
    Tenant(SmolStr),
}

/// Whom a subject means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Whom {
    /// By the member that named it.
    meant: Vec<(SmolStr, Meant)>,
    /// Members that no rule reads.
    unread: BTreeSet<SmolStr>,
}

/// Members whose entity acts, in the order in which they count.
const ACTING: [&str; 2] = ["user", "application"];

impl Whom {
    /// Reads a subject. Entity types are those of the snapshot.
    pub(crate) fn of(subject: &Subject, rules: &[Rule], snapshot: &Snapshot) -> Self {
        let mut whom = Self::default();
        match subject {
            Subject::Simple(simple) => {
                match rules
                    .iter()
                    .find_map(|rule| Some((rule.member.clone(), meant(rule, simple, snapshot)?)))
                {
                    Some(found) => whom.meant.push(found),
                    None => drop(whom.unread.insert("subject".into())),
                }
            }
            Subject::Complex(complex) => {
                for (name, member) in complex.members() {
                    let mut rules = rules.iter().filter(|rule| rule.member == name);
                    match rules.find_map(|rule| meant(rule, member, snapshot)) {
                        Some(found) => whom.meant.push((name.into(), found)),
                        None => drop(whom.unread.insert(name.into())),
                    }
                }
                whom.unread.extend(complex.unread().map(SmolStr::from));
            }
        }
        whom
    }

    /// A member that must be understood and is not.
    pub(crate) fn critical<'c>(
        &self,
        mut critical: impl Iterator<Item = &'c SmolStr>,
    ) -> Option<&'c SmolStr> {
        critical.find(|name| self.unread.contains(name.as_str()))
    }

    /// Whether every part of the subject is understood.
    pub(crate) fn is_whole(&self) -> bool {
        self.unread.is_empty()
    }

    /// The principal that acts.
    pub(crate) fn principal(&self) -> Option<&Uid> {
        ACTING.into_iter().find_map(|name| self.entity(name))
    }

    /// The entity that a member names.
    pub(crate) fn entity(&self, member: &str) -> Option<&Uid> {
        self.meant
            .iter()
            .filter(|(name, _)| name == member)
            .find_map(|(_, meant)| if let Meant::Entity(uid) = meant { Some(uid) } else { None })
    }

    pub(crate) fn session(&self) -> Option<&SmolStr> {
        self.meant.iter().find_map(|(_, meant)| if let Meant::Session(id) = meant { Some(id) } else { None })
    }

    pub(crate) fn device(&self) -> Option<&SmolStr> {
        self.meant.iter().find_map(|(_, meant)| if let Meant::Device(id) = meant { Some(id) } else { None })
    }

    pub(crate) fn tenant(&self) -> Option<&SmolStr> {
        self.meant.iter().find_map(|(_, meant)| if let Meant::Tenant(id) = meant { Some(id) } else { None })
    }
}

fn meant(rule: &Rule, simple: &Simple, snapshot: &Snapshot) -> Option<Meant> {
    if let Simple::Aliases(all) = simple
        && rule.format != "aliases"
    {
        return all.iter().find_map(|alias| meant(rule, alias, snapshot));
    }
    if rule.format != simple.format() {
        return None;
    }
    if let Some(issuer) = &rule.issuer
        && issuer_member(&rule.format).and_then(|member| simple.text(member)) != Some(issuer.as_str())
    {
        return None;
    }
    let id = rule.id.fill(simple).filter(|id| !id.is_empty())?;
    let named = |id: String| (id.len() <= NAME_BYTES_MAX).then(|| SmolStr::from(id));
    Some(match &rule.place {
        Place::Entity(kind) if id.len() <= ID_BYTES_MAX => {
            Meant::Entity(Uid::new(snapshot.type_name(kind)?, &id))
        }
        Place::Entity(_) => return None,
        Place::Session => Meant::Session(named(id)?),
        Place::Device => Meant::Device(named(id)?),
        Place::Tenant => Meant::Tenant(named(id)?),
    })
}

#[cfg(test)]
pub(super) mod tests;
