//! Policy templates and `links.json`, which fills their slots.
//!
//! The file has the form that Cedar's own tools read: a list of
//! `{"template_id": "…", "link_id": "…", "args": {"?principal": "Type::\"id\"", "?resource": …}}`.
//! A link is a policy like any other, with its template's annotations and its own id. Limits: [`LINKS_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cedar_policy::{EntityUid, PolicyId, PolicySet, SlotId, Template};
use serde::Deserialize;
use smol_str::SmolStr;

use super::validate::Places;
use super::{Files, Source, chain};
use crate::engine;
use crate::fault::Fault;
use crate::lint::rules;

/// Name of the file.
pub(super) const FILE: &str = "links.json";
/// Most links: as many as the policies of the largest bundle that is measured.
const LINKS_MAX: usize = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    template_id: SmolStr,
    link_id: SmolStr,
    args: BTreeMap<String, String>,
}

/// A template, and the file that it is written in.
struct Known<'f> {
    path: &'f Path,
    /// Place among the sources, and where the part begins that it was parsed in.
    file: (usize, usize),
    /// Whether something links it.
    linked: bool,
}

/// What the loader collects policies into.
pub(super) struct Collected<'c> {
    pub(super) policies: &'c mut Vec<(SmolStr, cedar_policy::Policy)>,
    pub(super) set: &'c mut PolicySet,
    pub(super) places: &'c mut Places,
    pub(super) faults: &'c mut Vec<Fault>,
}

/// Adds the templates of all files to the set, and a policy for each link.
pub(super) fn add(files: &Files, sources: &[Source<'_>], into: &mut Collected<'_>) {
    let mut known = templates(sources, into);
    let links = links(files, into.faults);
    for (at, link) in links.iter().enumerate() {
        let linked = match known.get_mut(&link.template_id) {
            Some(template) => {
                template.linked = true;
                join(link, template, into)
            }
            None => Err(format!(
                "there is no template `{}`; a template has the id that its `@id` gives it",
                link.template_id
            )),
        };
        if let Err(why) = linked {
            let message = format!("link {} (`{}`): {why}", at + 1, link.link_id);
            into.faults.push(Fault::of(&rules::LINKS_INVALID, FILE, message));
        }
    }
    for (id, template) in known.iter().filter(|(_, template)| !template.linked) {
        let message = format!("template `{id}` has no link, so it says nothing");
        into.faults.push(Fault::of(&rules::TEMPLATE_UNLINKED, template.path, message));
    }
}

fn templates<'f>(sources: &[Source<'f>], into: &mut Collected<'_>) -> BTreeMap<SmolStr, Known<'f>> {
    let mut known: BTreeMap<SmolStr, Known<'f>> = BTreeMap::new();
    for (file, source) in sources.iter().enumerate() {
        let own = source.parts.iter().flat_map(|part| {
            let mut own: Vec<&Template> = part.set.templates().collect();
            own.sort_by_key(|template| super::written_at(template.id()));
            own.into_iter().map(|template| (part.base, template))
        });
        for (base, template) in own {
            let number = known.len();
            let id = match template.annotation("id") {
                Some(id) if !id.is_empty() => SmolStr::new(id),
                _ => SmolStr::from(format!("template{number}")),
            };
            if let Err(error) = into.set.add_template(template.new_id(PolicyId::new(&id))) {
                let fault = Fault::of(&rules::DUPLICATE_ID, source.path, chain(&error));
                into.faults.push(fault);
                continue;
            }
            known.insert(id, Known { path: source.path, file: (file, base), linked: false });
        }
    }
    known
}

fn links(files: &Files, faults: &mut Vec<Fault>) -> Vec<Link> {
    let Some(bytes) = files.get(Path::new(FILE)) else { return Vec::new() };
    let mut refuse = |message: String| faults.push(Fault::of(&rules::LINKS_INVALID, FILE, message));
    match serde_json::from_slice::<Vec<Link>>(bytes) {
        Ok(links) if links.len() > LINKS_MAX => {
            refuse(format!("has {} links; at most {LINKS_MAX}", links.len()))
        }
        Ok(links) => return links,
        Err(error) => refuse(error.to_string()),
    }
    Vec::new()
}

fn join(link: &Link, template: &Known<'_>, into: &mut Collected<'_>) -> Result<(), String> {
    let mut values = HashMap::new();
    for (slot, value) in &link.args {
        let slot = match slot.as_str() {
            "?principal" => SlotId::principal(),
            "?resource" => SlotId::resource(),
            other => return Err(format!("`{other}` is no slot; there are `?principal` and `?resource`")),
        };
        let uid: EntityUid =
            value.parse().map_err(|_| format!("`{value}` is no entity: write `Type::\"id\"`"))?;
        values.insert(slot, uid);
    }
    let id = PolicyId::new(&link.link_id);
    let template_id = PolicyId::new(&link.template_id);
    into.set.link(template_id, id.clone(), values).map_err(|error| chain(&error))?;
    let policy = into.set.policy(&id).cloned().ok_or("it was not linked")?;
    into.places.add(&link.link_id, template.file, engine::span_of(&policy));
    into.policies.push((link.link_id.clone(), policy));
    Ok(())
}
