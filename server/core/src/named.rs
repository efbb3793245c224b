//! An entity by its name alone: somebody who approves, reviews or ends things need not be in the bundle's schema.

use cardea_policy_store::engine::Uid;
use smol_str::{SmolStr, ToSmolStr};

/// An entity, `Type::"id"`, whose type nobody looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// Type name with its namespaces.
    pub type_name: SmolStr,
    /// Id.
    pub id: SmolStr,
}

impl Named {
    /// Whether this is the name of that entity.
    #[must_use]
    pub fn is(&self, uid: &Uid) -> bool {
        self.id == uid.id() && self.type_name == uid.type_text()
    }
}

impl From<&Uid> for Named {
    fn from(uid: &Uid) -> Self {
        Self { type_name: uid.type_text().into(), id: uid.id().to_smolstr() }
    }
}

/// As policies write it, with what Cedar escapes escaped.
impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::\"{}\"", self.type_name, self.id.escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_its_entity() {
        for text in ["A::\"a\"", "N::A::\"\"", "A::\"with \\\"quotes\\\"\""] {
            let uid = Uid::from(&text.parse::<cedar_policy::EntityUid>().unwrap());
            let named = Named::from(&uid);
            assert!(named.is(&uid));
            assert_eq!(named.to_string(), uid.to_string());
            assert!(!Named { id: "b".into(), ..named.clone() }.is(&uid));
            assert!(!Named { type_name: "B".into(), ..named }.is(&uid));
        }
    }
}
