//! Routes: actions that no route leads to, routes whose action nobody may take.

use std::collections::BTreeSet;

use super::allow::Found;
use super::bundle::Bundle;
use super::{rules, schema};
use crate::engine::ActionTypes;
use crate::fault::{Fault, SourceText};
use crate::routes::{Route, RouteTable};

pub(super) fn find(bundle: &Bundle<'_>, found: &mut Found) {
    let Some(table) = &bundle.parsed.routes else { return };
    without_route(bundle, table, found);
    without_permit(bundle, table, found);
}

fn leads_to(route: &Route, types: &ActionTypes) -> bool {
    let action = route.action();
    types.action.id() == action.id && types.action.type_text() == action.action_type.as_str()
}

fn without_route(bundle: &Bundle<'_>, table: &RouteTable, found: &mut Found) {
    let callers: BTreeSet<&str> = table.identity().entity_types().map(smol_str::SmolStr::as_str).collect();
    for types in &bundle.actions {
        let by_callers = types.principals.iter().any(|name| callers.contains(name.to_string().as_str()));
        let applies = by_callers && !types.resources.is_empty();
        if applies && !table.routes().iter().any(|route| leads_to(route, types)) {
            let message = format!("no route of routes.toml leads to action `{}`", types.action.id());
            let declaration = schema::declaration_of_action(bundle, &types.action);
            found.add_declaration(bundle, &rules::ACTION_WITHOUT_ROUTE, declaration, message);
        }
    }
}

fn without_permit(bundle: &Bundle<'_>, table: &RouteTable, found: &mut Found) {
    let permitted: BTreeSet<(usize, String)> = schema::permitted(bundle)
        .into_iter()
        .map(|(number, resource)| (number, resource.to_string()))
        .collect();
    let source = SourceText::new(table.text());
    for route in table.routes() {
        let number = bundle.actions.iter().position(|types| leads_to(route, types));
        let Some(number) = number else { continue };
        if !permitted.contains(&(number, route.resource_type().to_string())) {
            let message = format!(
                "no permit covers action `{}` on `{}`, so every request to `{}` is denied",
                route.action().id,
                route.resource_type(),
                route.path()
            );
            let span = route.span();
            let fault = Fault::of(&rules::ROUTE_WITHOUT_PERMIT, "routes.toml", message);
            found.add(fault.within(&source, span.start, span.len()));
        }
    }
}
