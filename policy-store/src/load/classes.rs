//! What the schema's actions say that they do: `@class("…")`.

use std::collections::BTreeMap;
use std::path::Path;

use cardea_behavior::ActionClass;

use super::Files;
use crate::engine;
use crate::fault::Fault;
use crate::lint::rules;

/// By action, as `Type::"id"`.
pub(super) fn annotated(files: &Files, faults: &mut Vec<Fault>) -> BTreeMap<String, ActionClass> {
    let name = "schema.cedarschema";
    let Some(Ok(text)) = files.get(Path::new(name)).map(|bytes| std::str::from_utf8(bytes)) else {
        return BTreeMap::new();
    };
    let mut classes = BTreeMap::new();
    for (action, class) in engine::annotated_classes(text) {
        match ActionClass::named(&class) {
            Some(class) => _ = classes.insert(action, class),
            None => {
                let known = ActionClass::ALL.map(ActionClass::name).join(", ");
                let message = format!("action {action} says `@class(\"{class}\")`, which is none");
                let fault = Fault::of(&rules::CLASS_UNKNOWN, name, message);
                let written = format!("@class(\"{class}\")");
                let fault = match text.find(&written) {
                    Some(offset) => fault.at(text, offset, written.len()),
                    None => fault,
                };
                faults.push(fault.help(format!("write one of {known}")));
            }
        }
    }
    classes
}
