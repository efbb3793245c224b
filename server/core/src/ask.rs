//! What an approval is asked for, and the digests by which it is found again.
//!
//! An ask is everything that a grant will be bound to: who acts for whom, what it does to what, with which arguments, and
//! which requirement that meets. INVARIANT (same digest, same thing): the encoding under each digest is canonical and
//! injective: two attempts have the same digest if and only if they ask for the same.
//! Limit: [`ARGUMENT_BYTES_MAX`] bytes of arguments, encoded.

use cardea_policy_store::digest::Digest;
use cardea_policy_store::engine::{Plain, Record, Uid, Value};
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::attempt::Attempt;

/// Most arguments that a reviewer is shown, encoded, in bytes: some pages. What is larger nobody reads, so nobody is
/// asked to approve it.
pub const ARGUMENT_BYTES_MAX: usize = 16 * 1024;

/// What a requirement is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who wants to act.
    pub principal: Uid,
    /// Those on whose behalf, root first.
    pub delegation: SmallVec<[Uid; 2]>,
    /// What it wants to do.
    pub action: Uid,
    /// What it wants to do it to.
    pub resource: Uid,
    /// What the enforcement point sent along.
    pub arguments: Record,
    /// The step-up requirement, by its name in the bundle.
    pub requirement: SmolStr,
}

/// The digest of an attempt: who, for whom, what, to what, with which arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptDigest(pub Digest);

/// The digest of an ask: that of the attempt, and the requirement. Names the review.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskDigest(pub Digest);

/// An attempt's digests; `None` if its arguments are too large to be reviewed.
#[must_use]
pub fn digest(attempt: &Attempt) -> Option<AttemptDigest> {
    let arguments = encoded(arguments(attempt));
    let hops = attempt.hops().map(Clone::clone).collect::<SmallVec<[Uid; 4]>>();
    (arguments.len() <= ARGUMENT_BYTES_MAX)
        .then(|| AttemptDigest::new(&hops, &attempt.action.uid, &attempt.resource, &arguments))
}

/// Everything that was sent along, known to the schema or not: a reviewer approves all of it.
#[must_use]
pub fn arguments(attempt: &Attempt) -> &Record {
    attempt.sent.as_ref().unwrap_or(&attempt.request)
}

impl AttemptDigest {
    fn new(hops: &[Uid], action: &Uid, resource: &Uid, arguments: &[u8]) -> Self {
        let mut named = Vec::with_capacity(256);
        for uid in hops.iter().chain([action, resource]) {
            entity(uid, &mut named);
        }
        Self(Digest::of_parts([b"cardea attempt 1".as_slice(), &named, Digest::of(arguments).as_bytes()]))
    }

    /// The digest of an ask for this attempt.
    #[must_use]
    pub fn with(&self, requirement: &str) -> AskDigest {
        AskDigest(Digest::of_parts([b"cardea ask 1".as_slice(), self.0.as_bytes(), requirement.as_bytes()]))
    }
}

impl Ask {
    /// What the attempt asks the requirement for.
    #[must_use]
    pub fn of(attempt: &Attempt, requirement: &SmolStr) -> Self {
        Self {
            principal: attempt.principal.clone(),
            delegation: attempt.delegation.clone(),
            action: attempt.action.uid.clone(),
            resource: attempt.resource.clone(),
            arguments: arguments(attempt).clone(),
            requirement: requirement.clone(),
        }
    }

    /// The digest of the attempt that it speaks of.
    #[must_use]
    pub fn attempt_digest(&self) -> AttemptDigest {
        let hops: SmallVec<[Uid; 4]> = self.delegation.iter().chain([&self.principal]).cloned().collect();
        AttemptDigest::new(&hops, &self.action, &self.resource, &encoded(&self.arguments))
    }

    /// Its own digest.
    #[must_use]
    pub fn digest(&self) -> AskDigest {
        self.attempt_digest().with(&self.requirement)
    }

    /// Everyone in the attempt, root first, the principal last.
    pub fn hops(&self) -> impl Iterator<Item = &Uid> {
        self.delegation.iter().chain(std::iter::once(&self.principal))
    }
}

/// SHA-256 over the arguments: the same if and only if the records are equal.
#[must_use]
pub fn argument_digest(arguments: &Record) -> Digest {
    Digest::of(&encoded(arguments))
}

/// A record in its canonical form: each value is its kind, then its parts, each of a fixed length or preceded by it;
/// fields come by name, elements of a set by their encoding, each once.
fn encoded(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    fields(record, &mut out);
    out
}

fn fields(record: &Record, out: &mut Vec<u8>) {
    number(record.len(), out);
    for (name, field) in record.iter() {
        bytes(name.as_bytes(), out);
        value(&field, out);
    }
}

fn value(of: &Value, out: &mut Vec<u8>) {
    match of.plain() {
        Plain::Bool(value) => out.extend([1, u8::from(value)]),
        Plain::Long(value) => long(2, value, out),
        Plain::String(text) => {
            out.push(3);
            bytes(text.as_bytes(), out);
        }
        Plain::Entity(uid) => {
            out.push(4);
            entity(&uid, out);
        }
        Plain::Set(values) => {
            let mut elements: Vec<Vec<u8>> = values
                .iter()
                .map(|element| {
                    let mut encoded = Vec::new();
                    value(element, &mut encoded);
                    encoded
                })
                .collect();
            elements.sort_unstable();
            elements.dedup();
            out.push(5);
            number(elements.len(), out);
            elements.iter().for_each(|element| bytes(element, out));
        }
        Plain::Record(record) => {
            out.push(6);
            fields(&record, out);
        }
        Plain::Decimal(text) => {
            out.push(7);
            bytes(plain_decimal(&text).as_bytes(), out);
        }
        Plain::Ip(text) => {
            out.push(8);
            bytes(plain_ip(&text).as_bytes(), out);
        }
        Plain::Datetime(unix_ms) => long(9, unix_ms, out),
        Plain::Duration(ms) => long(10, ms, out),
    }
}

fn entity(uid: &Uid, out: &mut Vec<u8>) {
    bytes(uid.type_text().as_bytes(), out);
    bytes(uid.id().as_bytes(), out);
}

fn number(number: usize, out: &mut Vec<u8>) {
    out.extend(u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
}

fn bytes(part: &[u8], out: &mut Vec<u8>) {
    number(part.len(), out);
    out.extend(part);
}

fn long(kind: u8, value: i64, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(value.to_be_bytes());
}

/// `1.50` as `1.5`, `-0.0` as `0`, `01.0` as `1`: decimals are numbers, whatever they are written like.
fn plain_decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let sign = if whole.is_empty() && part.is_empty() { "" } else { sign };
    format!("{sign}{whole}.{part}")
}

/// `10.0.0.1` as `10.0.0.1/32`, `0:0::1` as `::1/128`. The length of a prefix keeps addresses of the two versions apart.
fn plain_ip(text: &str) -> String {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => {
            let whole = if address.is_ipv4() { "32" } else { "128" };
            format!("{address}/{}", prefix.unwrap_or(whole))
        }
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::engine::Extension;
    use proptest::prelude::*;

    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap())
    }

    fn any_extension() -> impl Strategy<Value = Value> {
        let texts = [
            (Extension::Decimal, "1.0"),
            (Extension::Decimal, "1.00"),
            (Extension::Decimal, "01.0"),
            (Extension::Decimal, "-1.0"),
            (Extension::Decimal, "10.0"),
            (Extension::Decimal, "0.1"),
            (Extension::Decimal, "0.0"),
            (Extension::Decimal, "-0.0"),
            (Extension::Decimal, "0.01"),
            (Extension::Ip, "10.0.0.1"),
            (Extension::Ip, "10.0.0.1/32"),
            (Extension::Ip, "10.0.0.1/8"),
            (Extension::Ip, "10.0.0.0/8"),
            (Extension::Ip, "::1"),
            (Extension::Ip, "0:0:0:0:0:0:0:1"),
            (Extension::Ip, "::1/32"),
            (Extension::Duration, "1h"),
            (Extension::Duration, "60m"),
            (Extension::Duration, "1ms"),
            (Extension::Datetime, "1970-01-01"),
            (Extension::Datetime, "1970-01-01T00:00:00Z"),
            (Extension::Datetime, "1970-01-01T00:00:01Z"),
        ];
        proptest::sample::select(texts.to_vec())
            .prop_map(|(kind, text)| Value::extension(kind, text).unwrap())
    }

    /// Few distinct leaves, so that equal values come up.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (-1..3i64).prop_map(Value::from),
            "[ab\u{0}]{0,2}".prop_map(|text| Value::from(text.as_str())),
            proptest::sample::select(vec!["A::\"a\"", "A::\"b\"", "B::\"a\"", "A::B::\"a\""])
                .prop_map(|text| Value::from(&uid(text))),
            any_extension(),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::set),
                proptest::collection::vec(("[ab]{0,2}", inner), 0..3)
                    .prop_map(|fields| Value::from(fields.into_iter().collect::<Record>())),
            ]
        })
    }

    fn any_record() -> impl Strategy<Value = Vec<(String, Value)>> {
        proptest::collection::vec(("[ab]{1,2}", any_value()), 0..3)
    }

    fn record(fields: &[(String, Value)]) -> Record {
        fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn arguments_have_the_same_digest_if_and_only_if_they_are_equal(
            (one, other) in prop_oneof![
                (any_record(), any_record()),
                any_record().prop_map(|fields| (fields.clone(), fields)),
            ],
        ) {
            let (one, other) = (record(&one), record(&other));
            prop_assert_eq!(argument_digest(&one) == argument_digest(&other), one == other);
        }

        #[test]
        fn values_have_the_same_encoding_if_and_only_if_they_are_equal(one in any_value(), other in any_value()) {
            let of = |value: &Value| argument_digest(&[("v", value.clone())].into_iter().collect());
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }

        #[test]
        fn order_and_repetition_do_not_matter(values in proptest::collection::vec(any_value(), 0..4)) {
            let backwards = Value::set(values.iter().rev().chain(&values).cloned());
            let of = |value: Value| argument_digest(&[("v", value)].into_iter().collect());
            prop_assert_eq!(of(Value::set(values)), of(backwards));
        }
    }

    fn attempt() -> Attempt {
        let arguments: Record = [("to", Value::from("a"))].into_iter().collect();
        let mut attempt = Attempt::given(uid("A::\"p\""), uid("Action::\"x\""), uid("R::\"r\""), arguments);
        attempt.delegation = [uid("A::\"root\"")].into_iter().collect();
        attempt
    }

    #[test]
    fn every_part_is_in_the_digest() {
        let whole = digest(&attempt()).unwrap();
        let with = |change: &dyn Fn(&mut Attempt)| {
            let mut other = attempt();
            change(&mut other);
            digest(&other).unwrap()
        };
        let others = [
            with(&|one| one.principal = uid("A::\"q\"")),
            with(&|one| one.principal = uid("B::\"p\"")),
            with(&|one| one.delegation.clear()),
            with(&|one| one.delegation.push(uid("A::\"sub\""))),
            with(&|one| one.resource = uid("R::\"s\"")),
            with(&|one| {
                one.action =
                    Attempt::given(uid("A::\"p\""), uid("Action::\"y\""), uid("R::\"r\""), Record::default())
                        .action
            }),
            with(&|one| one.request = Record::default()),
            with(&|one| one.sent = Some([("to", Value::from("b"))].into_iter().collect())),
        ];
        let distinct: std::collections::BTreeSet<_> = others.iter().chain([&whole]).collect();
        assert_eq!(distinct.len(), others.len() + 1);
        assert_ne!(whole.with("a"), whole.with("b"));
        let same = with(&|one| {
            one.session_id = Some("another".into());
            one.id = "other".into();
        });
        assert_eq!(same, whole);
        assert_eq!(Ask::of(&attempt(), &"r".into()).digest(), whole.with("r"));
    }

    #[test]
    fn arguments_that_nobody_would_read_have_none() {
        let mut large = attempt();
        let text = "x".repeat(ARGUMENT_BYTES_MAX);
        large.request = [("text", Value::from(text.as_str()))].into_iter().collect();
        assert_eq!(digest(&large), None);
    }
}
