//! What records do not tell: masks of the bundle, applied before a record is written, so that the log and every sink have the masked form only.
//!
//! A value that is masked where it stands is also taken out of every other text of the same record: of reasons, of evidence in words, of what
//! baselines are learned from. What cannot be checked for it, because the request is no longer known, is left out whole.
//! INVARIANT (every field is looked at): records are taken apart by all of their fields, so that a new one does not compile before somebody has
//! decided what it may tell.
//! Owns: the salts of pseudonyms. Never does: masking texts of policies, names of actions and ids of policies: they are the bundle's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use cardea_policy_store::masks::{Mask, Masks};
use cardea_proto::v1::{self, record::Entry, value::Kind};

use super::salts::Salts;

/// Stands where something was left out.
pub const REMOVED: &str = "~removed";

/// Shorter values are not looked for within other texts, where they would stand by chance.
const SEARCHED_BYTES_MIN: usize = 3;

/// See the module.
pub struct Masker {
    path: PathBuf,
    /// `None`: none was needed yet, or they cannot be read.
    salts: Option<Salts>,
    in_force: Arc<Masks>,
    now_ms: u64,
}

/// What was masked in one record, and what stands in its place.
#[derive(Default)]
struct Found(Vec<(String, String)>);

impl Masker {
    /// Keeps salts at this path, once they are needed.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, salts: None, in_force: Arc::default(), now_ms: 0 }
    }

    /// What holds for the record that comes next.
    pub(super) fn begin(&mut self, in_force: &Arc<Masks>, now_ms: u64) {
        if !Arc::ptr_eq(&self.in_force, in_force) {
            self.in_force = Arc::clone(in_force);
        }
        self.now_ms = now_ms;
    }

    /// Masks a record by what the bundle in force says.
    pub fn hide(&mut self, entry: &mut Entry) {
        let masks = Arc::clone(&self.in_force);
        if !masks.is_empty() {
            Hiding { masker: self, masks: &masks, found: Found::default(), paths: BTreeSet::new() }
                .entry(entry);
        }
    }

    /// Masks a decision by what the bundle says that judged it; `None`: none did. `request` holds the fields that the enforcement point sent
    /// of which something may be masked, also where the record does not tell them.
    pub fn hide_decision(
        &mut self,
        masks: Option<&Masks>,
        decision: &mut v1::DecisionRecord,
        mut request: BTreeMap<String, v1::Value>,
    ) {
        let in_force = Arc::clone(&self.in_force);
        let masks = masks.unwrap_or(&in_force);
        if masks.is_empty() {
            return;
        }
        let mut hiding = Hiding { masker: self, masks, found: Found::default(), paths: BTreeSet::new() };
        hiding.request(&mut request);
        hiding.decision(decision);
        decision.masked = hiding.paths.into_iter().collect();
    }

    fn masked(&mut self, mask: Mask, value: &str) -> String {
        match mask {
            Mask::Remove => REMOVED.to_owned(),
            Mask::Hash => self.pseudonym(value).unwrap_or_else(|| REMOVED.to_owned()),
        }
    }

    fn pseudonym(&mut self, value: &str) -> Option<String> {
        if self.salts.is_none() {
            match Salts::open(&self.path) {
                Ok(salts) => self.salts = Some(salts),
                Err(error) => {
                    tracing::error!(%error, "no pseudonyms: what should have one is left out of records");
                    return None;
                }
            }
        }
        let salts = self.salts.as_mut()?;
        salts.look(self.now_ms);
        salts.pseudonym(value)
    }
}

struct Hiding<'m> {
    masker: &'m mut Masker,
    masks: &'m Masks,
    found: Found,
    /// What was masked, by its path.
    paths: BTreeSet<String>,
}

impl Hiding<'_> {
    fn entry(&mut self, entry: &mut Entry) {
        match entry {
            Entry::Decision(decision) => self.decision(decision),
            Entry::Signal(signal) => {
                let v1::SignalRecord {
                    subject,
                    kind: _,
                    source: _,
                    outcome: _,
                    state_version: _,
                    reason,
                    session_id,
                    txn: _,
                    token_id: _,
                } = signal;
                self.entity(subject);
                self.session(session_id);
                self.text(reason);
            }
            Entry::Session(session) => {
                let v1::SessionRecord { session_id, principal, change: _, state_version: _, reason } =
                    session;
                self.entity(principal);
                self.session(session_id);
                self.text(reason);
            }
            Entry::Shadow(shadow) => {
                let v1::ShadowRecord {
                    decision_id: _,
                    door: _,
                    principal,
                    action,
                    resource,
                    session_id,
                    effect: _,
                    in_force,
                    candidate,
                } = shadow;
                [principal, action, resource].into_iter().for_each(|entity| self.entity(entity));
                self.session(session_id);
                for answer in [in_force, candidate].into_iter().flatten() {
                    answer.reasons.iter_mut().for_each(|reason| self.text(&mut reason.message));
                }
            }
            Entry::Task(task) => {
                let v1::TaskRecord {
                    task_id: _,
                    agent,
                    on_behalf_of,
                    change: _,
                    by,
                    state_version: _,
                    reason,
                    asked_by,
                    not_after: _,
                } = task;
                [agent, on_behalf_of, by].into_iter().for_each(|entity| self.entity(entity));
                self.text(reason);
                self.asked_by(asked_by);
            }
            Entry::Review(review) => self.review(review),
            Entry::Bundle(bundle) => self.asked_by(&mut bundle.asked_by),
            Entry::Gap(_) | Entry::Stream(_) | Entry::Withheld(_) | Entry::Retention(_) => {}
        }
    }

    fn review(&mut self, review: &mut v1::ReviewRecord) {
        let v1::ReviewRecord {
            review_id: _,
            round: _,
            change: _,
            principal,
            delegation,
            action,
            resource,
            argument_digest: _,
            requirement: _,
            decision_id: _,
            reviewer,
            grant_ends_at: _,
            state_version: _,
            reason,
            asked_by,
            deviation,
            once: _,
            into_baseline,
        } = review;
        [principal, action, resource, reviewer].into_iter().for_each(|entity| self.entity(entity));
        delegation.iter_mut().for_each(|entity| self.entity_ref(entity));
        self.text(reason);
        self.asked_by(asked_by);
        // What was sent is not known here, and both may hold it.
        let is_request_masked = !self.masks.request().is_empty();
        if let Some(deviation) = deviation {
            if is_request_masked {
                deviation.evidence = vec![REMOVED.to_owned()];
            }
            deviation.evidence.iter_mut().for_each(|text| self.text(text));
        }
        if let Some(observed) = into_baseline {
            if is_request_masked {
                unlearn(observed);
            }
            self.observed(observed);
        }
    }

    fn decision(&mut self, decision: &mut v1::DecisionRecord) {
        let v1::DecisionRecord {
            decision_id: _,
            door: _,
            principal,
            action,
            resource,
            session_id,
            delegation,
            decision: _,
            reasons,
            determining_policies: _,
            policy_errors: _,
            step_up: _,
            obligations: _,
            evidence,
            basis: _,
            latency_ns: _,
            hops,
            attempt_id,
            severity: _,
            replay,
            hold: _,
            deviation,
            counters: _,
            responses: _,
            would_have: _,
            observed,
            left_out: _,
            masked: _,
        } = decision;
        [&mut *principal, action, &mut *resource].into_iter().for_each(|entity| self.entity(entity));
        delegation.iter_mut().for_each(|entity| self.entity_ref(entity));
        hops.iter_mut().for_each(|hop| self.entity(&mut hop.principal));
        self.session(session_id);
        if let Some(mask) = self.masks.attempt_id.filter(|_| !attempt_id.is_empty()) {
            self.paths.insert("attempt_id".to_owned());
            self.masked_text(mask, attempt_id);
        }
        for evidence in evidence.iter_mut() {
            if let (Some(mask), Some(value)) = (self.masks.fact(&evidence.fact), &mut evidence.value) {
                self.paths.insert(evidence.fact.clone());
                self.value(mask, value);
                // In its words may stand what the value is made of.
                evidence.why = String::new();
            }
        }
        if let Some(replay) = replay {
            self.replay(replay);
        }
        // Everything that is masked is known by now.
        reasons.iter_mut().for_each(|reason| self.text(&mut reason.message));
        for evidence in evidence.iter_mut() {
            self.text(&mut evidence.why);
            self.search_value(&mut evidence.value);
        }
        if let Some(deviation) = deviation {
            deviation.evidence.iter_mut().for_each(|text| self.text(text));
        }
        if let Some(observed) = observed {
            self.observed(observed);
        }
        // A resource is often named by what was sent.
        for entity in [principal, resource].into_iter().flatten() {
            self.text(&mut entity.id);
        }
    }

    fn replay(&mut self, replay: &mut v1::Replay) {
        self.request(&mut replay.request);
        for fact in &mut replay.facts {
            if let (Some(mask), Some(value)) = (self.masks.fact(&fact.fact), &mut fact.value) {
                self.paths.insert(fact.fact.clone());
                self.value(mask, value);
            }
        }
        replay.request.values_mut().for_each(|value| self.entities_in(value));
        replay.request.values_mut().for_each(|value| self.search(value));
        replay.facts.iter_mut().for_each(|fact| self.search_value(&mut fact.value));
    }

    /// Masks fields of what was sent.
    fn request(&mut self, request: &mut BTreeMap<String, v1::Value>) {
        let masks = self.masks;
        for (path, mask) in masks.request() {
            let Some((name, rest)) = path.split_first() else { continue };
            let Some(value) = request.get_mut(name.as_str()) else { continue };
            let before = value.clone();
            self.within(*mask, value, rest);
            if *value != before {
                self.paths.insert(format!("request.{}", path.join(".")));
            }
        }
    }

    /// Masks what stands at a path below a value; in a set, below each of its members.
    fn within(&mut self, mask: Mask, value: &mut v1::Value, path: &[smol_str::SmolStr]) {
        let Some((name, rest)) = path.split_first() else { return self.value(mask, value) };
        match &mut value.kind {
            Some(Kind::Record(record)) => {
                if let Some(inner) = record.fields.get_mut(name.as_str()) {
                    self.within(mask, inner, rest);
                }
            }
            Some(Kind::Set(set)) => set.values.iter_mut().for_each(|inner| self.within(mask, inner, path)),
            _ => {}
        }
    }

    /// Masks a value: sets and records member by member, so that their shape stays.
    fn value(&mut self, mask: Mask, value: &mut v1::Value) {
        let text = match &mut value.kind {
            None => return,
            Some(Kind::Set(set)) => return set.values.iter_mut().for_each(|inner| self.value(mask, inner)),
            Some(Kind::Record(record)) => {
                return record.fields.values_mut().for_each(|inner| self.value(mask, inner));
            }
            Some(Kind::Entity(entity)) => return self.masked_text(mask, &mut entity.id),
            Some(Kind::String(text)) => return self.masked_text(mask, text),
            Some(Kind::Bool(value)) => value.to_string(),
            Some(Kind::Long(value)) => value.to_string(),
            Some(Kind::Decimal(text) | Kind::Ip(text)) => std::mem::take(text),
            Some(Kind::Datetime(time)) => time.to_string(),
            Some(Kind::Duration(span)) => span.to_string(),
        };
        let mut text = text;
        self.masked_text(mask, &mut text);
        value.kind = Some(Kind::String(text));
    }

    fn masked_text(&mut self, mask: Mask, text: &mut String) {
        if text.is_empty() || text.starts_with('~') && self.found.0.iter().any(|(_, shown)| shown == text) {
            return;
        }
        let shown = self.masker.masked(mask, text);
        let original = std::mem::replace(text, shown.clone());
        if !self.found.0.iter().any(|(known, _)| *known == original) {
            self.found.0.push((original, shown));
        }
    }

    fn entity(&mut self, entity: &mut Option<v1::EntityRef>) {
        if let Some(entity) = entity {
            self.entity_ref(entity);
        }
    }

    fn entity_ref(&mut self, entity: &mut v1::EntityRef) {
        if let Some(mask) = self.masks.entity(&entity.r#type) {
            self.paths.insert(format!("entity.{}", entity.r#type));
            self.masked_text(mask, &mut entity.id);
        }
    }

    fn entities_in(&mut self, value: &mut v1::Value) {
        match &mut value.kind {
            Some(Kind::Entity(entity)) => self.entity_ref(entity),
            Some(Kind::Set(set)) => set.values.iter_mut().for_each(|inner| self.entities_in(inner)),
            Some(Kind::Record(record)) => {
                record.fields.values_mut().for_each(|inner| self.entities_in(inner))
            }
            _ => {}
        }
    }

    fn session(&mut self, session_id: &mut String) {
        if let Some(mask) = self.masks.session_id.filter(|_| !session_id.is_empty()) {
            self.paths.insert("session_id".to_owned());
            self.masked_text(mask, session_id);
        }
    }

    fn asked_by(&mut self, asked_by: &mut String) {
        match self.masks.asked_by {
            Some(mask) => self.masked_text(mask, asked_by),
            None => self.text(asked_by),
        }
    }

    fn observed(&mut self, observed: &mut v1::ObservedRecord) {
        let v1::ObservedRecord { task: _, targets, references, network, observing: _, unusable } = observed;
        let before = (targets.clone(), references.clone(), network.clone());
        targets.iter_mut().chain(references.iter_mut()).for_each(|text| self.text(text));
        self.text(network);
        // A pseudonym is no name that anything could be compared with.
        *unusable |= before != (targets.clone(), references.clone(), network.clone());
    }

    /// Takes what was masked out of a text.
    fn text(&self, text: &mut String) {
        for (original, shown) in &self.found.0 {
            if text == original {
                text.clone_from(shown);
            } else if original.len() >= SEARCHED_BYTES_MIN && text.contains(original.as_str()) {
                *text = text.replace(original.as_str(), shown);
            }
        }
    }

    fn search_value(&self, value: &mut Option<v1::Value>) {
        if let Some(value) = value {
            self.search(value);
        }
    }

    fn search(&self, value: &mut v1::Value) {
        match &mut value.kind {
            Some(Kind::String(text)) => self.text(text),
            Some(Kind::Entity(entity)) => self.text(&mut entity.id),
            Some(Kind::Set(set)) => set.values.iter_mut().for_each(|inner| self.search(inner)),
            Some(Kind::Record(record)) => record.fields.values_mut().for_each(|inner| self.search(inner)),
            _ => {}
        }
    }
}

/// Nothing can be learned from it.
fn unlearn(observed: &mut v1::ObservedRecord) {
    let (task, observing) = (std::mem::take(&mut observed.task), observed.observing);
    *observed = v1::ObservedRecord { task, observing, unusable: true, ..v1::ObservedRecord::default() };
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::masks::AuditSettings;
    use proptest::prelude::*;

    use super::*;

    fn masks(paths: &[(&str, Mask)]) -> Masks {
        Masks::of(&AuditSettings { mask: paths.iter().map(|(path, mask)| ((*path).into(), *mask)).collect() })
    }

    fn text(value: &str) -> v1::Value {
        v1::Value { kind: Some(Kind::String(value.to_owned())) }
    }

    fn entity(type_name: &str, id: &str) -> v1::EntityRef {
        v1::EntityRef { r#type: type_name.to_owned(), id: id.to_owned() }
    }

    fn record_of(fields: &[(&str, v1::Value)]) -> v1::Value {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        v1::Value { kind: Some(Kind::Record(v1::ValueRecord { fields })) }
    }

    /// A decision that tells a person, an address and a session wherever a record can.
    fn decision(
        person: &str,
        address: &str,
        session: &str,
    ) -> (v1::DecisionRecord, BTreeMap<String, v1::Value>) {
        let who = entity("Person", person);
        let to = v1::Value {
            kind: Some(Kind::Set(v1::ValueSet {
                values: vec![record_of(&[("address", text(address)), ("kind", text("to"))])],
            })),
        };
        let request = BTreeMap::from([
            ("to".to_owned(), to),
            ("owner".to_owned(), v1::Value { kind: Some(Kind::Entity(who.clone())) }),
            ("note".to_owned(), text(&format!("mail <{address}> for {person}"))),
        ]);
        let fact = |value: &str| v1::ReplayFact {
            fact: "token.issuer".to_owned(),
            hop: 0,
            value: Some(text(value)),
        };
        let decision = v1::DecisionRecord {
            principal: Some(who.clone()),
            delegation: vec![who.clone()],
            resource: Some(entity("Mailbox", &format!("inbox/{address}"))),
            session_id: session.to_owned(),
            reasons: vec![v1::Reason { code: 1, message: format!("{person} may not write to {address}") }],
            hops: vec![v1::HopVerdict { principal: Some(who), ..v1::HopVerdict::default() }],
            evidence: vec![
                v1::Evidence {
                    fact: "token.issuer".to_owned(),
                    value: Some(text(person)),
                    why: format!("from {person}"),
                },
                v1::Evidence {
                    fact: "actor.root".to_owned(),
                    value: Some(text(&format!("Person::{person}"))),
                    why: String::new(),
                },
            ],
            replay: Some(Box::new(v1::Replay { request: request.clone(), facts: vec![fact(person)] })),
            deviation: Some(Box::new(v1::DeviationRecord {
                evidence: vec![format!("`{address}` is new in {session}")],
                ..v1::DeviationRecord::default()
            })),
            observed: Some(Box::new(v1::ObservedRecord {
                targets: vec![address.to_owned()],
                references: vec![format!("mailto:{address}")],
                ..v1::ObservedRecord::default()
            })),
            ..v1::DecisionRecord::default()
        };
        (decision, request)
    }

    fn all(mask: Mask) -> Masks {
        masks(&[("entity.Person", mask), ("request.to.address", mask), ("session_id", mask), ("token", mask)])
    }

    proptest! {
        #[test]
        fn what_is_masked_stands_nowhere_in_the_record(
            person in "p[a-z]{4,12}", address in "[a-z]{4,10}@[a-z]{3,9}\\.example", session in "s-[0-9]{6,12}",
            hash in any::<bool>(), kept in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut masker = Masker::new(dir.path().join("a.salts"));
            let (mut decision, request) = decision(&person, &address, &session);
            if !kept {
                decision.replay = None;
            }
            masker.hide_decision(Some(&all(if hash { Mask::Hash } else { Mask::Remove })), &mut decision, request);
            let told = serde_json::to_string(&decision).unwrap();
            for hidden in [&person, &address, &session] {
                prop_assert!(!told.contains(hidden.as_str()), "{hidden}: {told}");
            }
            prop_assert!(decision.observed.unwrap().unusable, "nothing is learned from pseudonyms");
            prop_assert_eq!(decision.masked, ["entity.Person", "request.to.address", "session_id", "token.issuer"]);
        }
    }

    #[test]
    fn the_same_value_has_the_same_pseudonym_in_every_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut masker = Masker::new(dir.path().join("a.salts"));
        let masks = Arc::new(all(Mask::Hash));
        let (mut decision, request) = decision("pauline", "mail@acme.example", "s-123456");
        masker.hide_decision(Some(&masks), &mut decision, request);
        masker.begin(&masks, 0);
        let mut entry = Entry::Session(v1::SessionRecord {
            session_id: "s-123456".to_owned(),
            principal: Some(entity("Person", "pauline")),
            reason: "pauline called about s-123456".to_owned(),
            ..v1::SessionRecord::default()
        });
        masker.hide(&mut entry);
        let Entry::Session(session) = entry else { unreachable!() };
        assert_eq!(session.principal, decision.principal);
        assert_eq!(session.session_id, decision.session_id);
        let pseudonym = &decision.principal.unwrap().id;
        assert_eq!(session.reason, format!("{pseudonym} called about {}", decision.session_id));
        assert_eq!(masker.pseudonym("pauline").as_ref(), Some(pseudonym));
    }

    #[test]
    fn what_no_mask_names_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut masker = Masker::new(dir.path().join("a.salts"));
        let (mut decision, request) = decision("pauline", "mail@acme.example", "s-123456");
        let before = decision.clone();
        masker.hide_decision(Some(&Masks::default()), &mut decision, request.clone());
        assert_eq!(decision, before);
        masker.hide_decision(
            Some(&masks(&[("request.from", Mask::Hash), ("entity.Agent", Mask::Remove)])),
            &mut decision,
            request,
        );
        assert_eq!(decision, before);
        assert!(!dir.path().join("a.salts").exists(), "no salts without need");
    }

    #[test]
    fn a_review_tells_nothing_that_may_have_been_sent() {
        let dir = tempfile::tempdir().unwrap();
        let mut masker = Masker::new(dir.path().join("a.salts"));
        masker.begin(&Arc::new(all(Mask::Hash)), 0);
        let (decision, _) = decision("pauline", "mail@acme.example", "s-123456");
        let mut entry = Entry::Review(v1::ReviewRecord {
            principal: decision.principal,
            reason: "pauline asked".to_owned(),
            deviation: decision.deviation.map(|deviation| *deviation),
            into_baseline: decision.observed.map(|observed| *observed),
            ..v1::ReviewRecord::default()
        });
        masker.hide(&mut entry);
        let told = serde_json::to_string(&entry).unwrap();
        assert!(!told.contains("acme") && !told.contains("pauline"), "{told}");
        let Entry::Review(review) = entry else { unreachable!() };
        assert!(review.into_baseline.unwrap().unusable);
    }

    #[test]
    fn who_asked_for_a_change_is_masked_where_the_bundle_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut masker = Masker::new(dir.path().join("a.salts"));
        let asked_by = "spiffe://acme.example/people/pauline".to_owned();
        let mut tell = |masks: &[(&str, Mask)]| {
            masker.begin(&Arc::new(self::masks(masks)), 0);
            let bundle = v1::BundleRecord { asked_by: asked_by.clone(), ..v1::BundleRecord::default() };
            let task = v1::TaskRecord {
                by: Some(entity("Person", "pauline")),
                asked_by: asked_by.clone(),
                ..v1::TaskRecord::default()
            };
            let mut entries = [Entry::Bundle(bundle), Entry::Task(task)];
            entries.iter_mut().for_each(|entry| masker.hide(entry));
            serde_json::to_string(&entries).unwrap()
        };
        assert!(!tell(&[("asked_by", Mask::Hash), ("entity.Person", Mask::Hash)]).contains("pauline"));
        // Without it, only what is masked in the same record is taken out.
        let told = tell(&[("entity.Person", Mask::Remove)]);
        assert_eq!(told.matches("pauline").count(), 1, "{told}");
    }

    #[test]
    fn without_salts_what_should_have_a_pseudonym_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.salts");
        std::fs::write(&path, "no salts").unwrap();
        let (mut decision, request) = decision("pauline", "mail@acme.example", "s-123456");
        Masker::new(path).hide_decision(Some(&all(Mask::Hash)), &mut decision, request);
        assert_eq!(decision.principal.unwrap().id, REMOVED);
    }
}
