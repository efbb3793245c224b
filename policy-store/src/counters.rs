//! `[counters.NAME]` of `bundle.toml`: what is counted, for whom, when, over which window; and the same compiled.
//!
//! A counter's [`Definition`] is what it counts, in one number: a newer bundle that keeps a definition goes on with what was
//! counted under it, and one that changes anything in it starts anew. How long a reservation waits is no part of it.
//! Limits: [`COUNTERS_MAX`], so that a set of counters is one word; [`PATTERNS_MAX`] patterns each; windows up to
//! [`WINDOW_MAX_S`]. Never counts anything: `cardea-core` has the arithmetic, the service the table.

use std::collections::BTreeSet;
use std::fmt;

use cardea_behavior::classes::fits;
use serde::Deserialize;
use smol_str::SmolStr;

use crate::digest::Digest;
use crate::engine::Uid;

/// Most counters of a bundle.
pub const COUNTERS_MAX: usize = 32;
/// Most patterns of a counter; a `*` says more than a list.
pub const PATTERNS_MAX: usize = 256;
/// Longest window, in seconds: 30 days. What is counted over longer is accounting, not access.
pub const WINDOW_MAX_S: u64 = 30 * 24 * 3600;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// `[counters.NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterSettings {
    /// The actions that are counted, by id or as `Type::"id"`; `*` stands for anything.
    pub actions: Vec<SmolStr>,
    /// Whose attempts are counted together.
    pub per: Per,
    /// Which attempts count.
    #[serde(default)]
    pub on: On,
    /// An attempt counts for so long, in seconds.
    pub window_s: u64,
    /// With `on = "commit"`: a reservation that nobody settles counts as committed after so long, in seconds.
    #[serde(default)]
    pub reserve_s: Option<u64>,
}

/// Whose attempts are counted together. Who is none of these has no count of his own: policies read the largest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// A session that is known.
    Session,
    /// The principal.
    Identity,
    /// Who stands at the start of the delegation chain; without one the principal.
    Root,
    /// The task that the attempt belongs to, if the principal may use it.
    Task,
    /// The tenant of the session.
    Tenant,
}

impl Per {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Identity => "identity",
            Self::Root => "root",
            Self::Task => "task",
            Self::Tenant => "tenant",
        }
    }
}

/// Which attempts count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Every one that policy is asked about, refused ones too.
    Attempt,
    /// Allowed ones.
    #[default]
    Allow,
    /// Allowed ones whose action was then done: the enforcement point says so, or says nothing.
    Commit,
}

impl On {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Allow => "allow",
            Self::Commit => "commit",
        }
    }
}

/// What a counter counts, in one number that nobody can aim at: the start of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Definition(pub u128);

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A counter as a snapshot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// The name that policies read it by.
    pub name: SmolStr,
    /// What it counts.
    pub definition: Definition,
    /// Whose attempts are counted together.
    pub per: Per,
    /// Which attempts count.
    pub on: On,
    /// For how long, in milliseconds.
    pub window_ms: u64,
    /// How long a reservation waits, in milliseconds; 0 unless `on` is [`On::Commit`].
    pub reserve_ms: u64,
}

impl CounterSettings {
    /// What no counter may say, each as the end of a sentence that begins with the counter.
    pub(crate) fn faults(&self, name: &str) -> Vec<String> {
        let mut faults = Vec::new();
        if !is_name(name) {
            faults.push(format!(
                "cannot be read by policies under that name: use lower-case letters, digits and `_`, a letter first, at most \
                 {NAME_BYTES_MAX} bytes"
            ));
        }
        if self.actions.is_empty() {
            faults
                .push("counts nothing: give it `actions`, by id, as `Type::\"id\"`, or with `*`".to_owned());
        }
        if self.actions.len() > PATTERNS_MAX {
            faults.push(format!("has more than {PATTERNS_MAX} `actions`: use `*`, or name them alike"));
        }
        let mut seen = BTreeSet::new();
        let twice = self.actions.iter().find(|pattern| !seen.insert(pattern.as_str()));
        faults.extend(twice.map(|pattern| format!("names `{pattern}` twice in `actions`: once is enough")));
        if !(1..=WINDOW_MAX_S).contains(&self.window_s) {
            faults.push(format!("has a `window_s` that is not 1 to {WINDOW_MAX_S} (30 days)"));
        }
        match (self.on, self.reserve_s) {
            (On::Commit, Some(reserve_s)) if (1..=self.window_s).contains(&reserve_s) => {}
            (On::Commit, _) => faults.push(
                "counts commits: give it `reserve_s`, after which an allow that nobody settled counts, 1 to `window_s`"
                    .to_owned(),
            ),
            (On::Attempt | On::Allow, Some(_)) => faults.push(
                "has a `reserve_s` that nothing waits for: leave it out, or count `on = \"commit\"`".to_owned(),
            ),
            (On::Attempt | On::Allow, None) => {}
        }
        faults
    }

    /// Whether attempts at the action are counted.
    pub(crate) fn counts(&self, action: &Uid) -> bool {
        let whole = action.to_string();
        self.actions.iter().any(|pattern| fits(pattern, action.id()) || fits(pattern, &whole))
    }

    /// The patterns that fit none of these actions.
    pub(crate) fn idle_patterns<'s>(&'s self, actions: &[&Uid]) -> Vec<&'s SmolStr> {
        let named: Vec<(&str, String)> = actions.iter().map(|uid| (uid.id(), uid.to_string())).collect();
        let is_idle =
            |pattern: &&SmolStr| !named.iter().any(|(id, whole)| fits(pattern, id) || fits(pattern, whole));
        self.actions.iter().filter(is_idle).collect()
    }

    /// The counter of that name.
    pub(crate) fn compile(&self, name: &SmolStr) -> Counter {
        Counter {
            name: name.clone(),
            definition: self.definition(name),
            per: self.per,
            on: self.on,
            window_ms: self.window_s.saturating_mul(1000),
            reserve_ms: self.reserve_s.unwrap_or(0).saturating_mul(1000),
        }
    }

    fn definition(&self, name: &str) -> Definition {
        let window = self.window_s.to_be_bytes();
        let actions: BTreeSet<&[u8]> = self.actions.iter().map(|pattern| pattern.as_bytes()).collect();
        let fixed: [&[u8]; 4] =
            [name.as_bytes(), self.per.name().as_bytes(), self.on.name().as_bytes(), &window];
        let digest = Digest::of_parts(fixed.into_iter().chain(actions));
        let start = digest.as_bytes().first_chunk().copied().unwrap_or_default();
        Definition(u128::from_be_bytes(start))
    }
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= NAME_BYTES_MAX
        && name.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> CounterSettings {
        toml::from_str(text).unwrap()
    }

    const EMAILS: &str = "actions = [\"send_*\"]\nper = \"session\"\nwindow_s = 3600\n";

    #[test]
    fn what_a_counter_may_not_say_is_told_with_what_to_do() {
        let commit = format!("{EMAILS}on = \"commit\"\n");
        for (name, text, wanted) in [
            ("Emails", EMAILS.to_owned(), "lower-case letters"),
            ("", EMAILS.to_owned(), "lower-case letters"),
            ("e", "actions = []\nper = \"task\"\nwindow_s = 1".to_owned(), "give it `actions`"),
            ("e", "actions = [\"a\", \"a\"]\nper = \"task\"\nwindow_s = 1".to_owned(), "once is enough"),
            ("e", EMAILS.replace("3600", "0"), "1 to 2592000"),
            ("e", EMAILS.replace("3600", "2592001"), "1 to 2592000"),
            ("e", commit.clone(), "give it `reserve_s`"),
            ("e", format!("{commit}reserve_s = 0"), "give it `reserve_s`"),
            ("e", format!("{commit}reserve_s = 3601"), "give it `reserve_s`"),
            ("e", format!("{EMAILS}reserve_s = 5"), "nothing waits for"),
        ] {
            let faults = settings(&text).faults(name);
            assert!(faults.len() == 1 && faults[0].contains(wanted), "{text}: {faults:?}");
        }
        assert_eq!(settings(EMAILS).faults("emails"), [""; 0]);
        assert_eq!(settings(&format!("{commit}reserve_s = 60")).faults("emails_2"), [""; 0]);
        assert!(toml::from_str::<CounterSettings>(&EMAILS.replace("session", "galaxy")).is_err());
    }

    #[test]
    fn what_counts_makes_the_definition_and_how_long_a_reservation_waits_does_not() {
        let of = |name: &str, text: &str| settings(text).compile(&name.into()).definition;
        let own = of("emails", EMAILS);
        for other in [
            of("mails", EMAILS),
            of("emails", &EMAILS.replace("3600", "3601")),
            of("emails", &EMAILS.replace("session", "identity")),
            of("emails", &EMAILS.replace("send_*", "send*")),
            of("emails", &format!("{EMAILS}on = \"attempt\"")),
        ] {
            assert_ne!(own, other);
        }
        let commit =
            |reserve_s: u64| of("emails", &format!("{EMAILS}on = \"commit\"\nreserve_s = {reserve_s}"));
        assert_eq!(commit(5), commit(6));
        let several = |actions: &str| of("e", &EMAILS.replace("\"send_*\"", actions));
        assert_eq!(several("\"a\", \"b\""), several("\"b\", \"a\""), "order says nothing");
        assert_ne!(several("\"a\", \"b\""), several("\"ab\""));
    }
}
