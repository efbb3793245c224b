//! `@class("…")` at the actions of a schema. Cedar keeps annotations in the schema's syntax alone, not in the schema that it makes of it.

use std::collections::BTreeMap;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::RawName;
use cedar_policy_core::validator::json_schema::Fragment;

/// The annotation.
const KEY: &str = "class";

/// What each action says that it does, by `Type::"id"`. Nothing where the text is no schema, which is told elsewhere.
pub(crate) fn annotated_classes(schema: &str) -> BTreeMap<String, String> {
    // Most schemas have none, and parsing takes as long as parsing the schema.
    if !schema.contains('@') {
        return BTreeMap::new();
    }
    let Ok((fragment, _)) = Fragment::<RawName>::from_cedarschema_str(schema, Extensions::all_available())
    else {
        return BTreeMap::new();
    };
    let mut found = BTreeMap::new();
    for (namespace, definition) in fragment.0 {
        let type_name = namespace.map_or_else(|| "Action".to_owned(), |name| format!("{name}::Action"));
        let Ok(type_name) = type_name.parse::<EntityTypeName>() else { continue };
        for (id, action) in definition.actions {
            let class = action.annotations.0.into_iter().find(|(key, _)| key.as_ref() == KEY);
            if let Some((_, class)) = class {
                let uid = EntityUid::from_type_name_and_id(type_name.clone(), EntityId::new(id));
                found.insert(uid.to_string(), class.map(|class| class.val.to_string()).unwrap_or_default());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read_by_whole_names_of_actions() {
        let text = r#"
            entity E;
            @class("egress") action send, "mail out" appliesTo { principal: E, resource: E };
            @doc("x") action read appliesTo { principal: E, resource: E };
            namespace A::B { @class action go appliesTo { principal: E, resource: E }; }
        "#;
        let found: Vec<_> = annotated_classes(text).into_iter().collect();
        let of = |name: &str, class: &str| (name.to_owned(), class.to_owned());
        assert_eq!(
            found,
            [
                of(r#"A::B::Action::"go""#, ""),
                of(r#"Action::"mail out""#, "egress"),
                of(r#"Action::"send""#, "egress"),
            ]
        );
        assert!(annotated_classes("@class(").is_empty());
    }
}
