//! Plain Cedar files, whose whole context the caller gives: for `cardea eval` and comparison runs.

use std::collections::BTreeMap;
use std::path::Path;

use cedar_policy::{Entities, Schema};

use super::validate::validate;
use super::{Parsing, Source, chain, collect, digest, on_deep_stack, read, source, walk};
use crate::engine;
use crate::fault::{Fault, Faults};
use crate::settings::{OnPolicyError, Requirement, Settings};
use crate::snapshot::{Parts, Snapshot};

/// Where the files are.
#[derive(Clone, Copy, Debug)]
pub struct CedarSources<'p> {
    /// A file, or a directory whose `*.cedar` files are read in the order of their paths.
    pub policies: &'p Path,
    /// Schema, in Cedar's syntax, or JSON if the name ends so.
    pub schema: Option<&'p Path>,
    /// Entities, in Cedar's JSON.
    pub entities: Option<&'p Path>,
    /// What an erroring policy does.
    pub on_policy_error: OnPolicyError,
}

/// Cedar policies with the schema that they were loaded with, if any.
#[derive(Debug)]
pub struct CedarLoaded {
    /// The policies, compiled; the caller gives the whole context.
    pub snapshot: Snapshot,
    /// The schema.
    pub schema: Option<Schema>,
    /// What a bundle would be refused for, and Cedar itself would not: validation, templates without links, ids used
    /// twice.
    pub warnings: Vec<Fault>,
}

/// Loads plain Cedar files.
///
/// # Errors
/// Every fault that was found.
pub fn cedar(from: &CedarSources<'_>) -> Result<CedarLoaded, Faults> {
    on_deep_stack(|| load(from))
}

fn load(from: &CedarSources<'_>) -> Result<CedarLoaded, Faults> {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut files = BTreeMap::new();
    if from.policies.is_dir() {
        walk(from.policies, from.policies, "cedar", &mut files, &mut 0)?;
    } else {
        files.insert(from.policies.to_owned(), read(from.policies, from.policies, &mut 0)?);
    }
    let sources: Vec<Source<'_>> =
        files.iter().filter_map(|(path, bytes)| source(path, bytes, Parsing::Whole, &mut faults)).collect();
    let (policies, set, places) = collect(&files, &sources, &mut warnings);
    let schema = from.schema.and_then(|path| schema(path, &mut faults));
    if let Some(schema) = &schema {
        let mut findings = Vec::new();
        validate(schema, &set, (&sources, &places), &mut findings, &mut warnings);
        warnings.extend(findings);
    }
    let entities = match (from.entities, &schema) {
        (Some(path), _) => entities(path, schema.as_ref(), &mut faults),
        (None, Some(schema)) => {
            schema.action_entities().map_err(|error| faults.push(Fault::new("schema", chain(&error)))).ok()
        }
        (None, None) => Some(Entities::empty()),
    };
    let Some(entities) = entities.filter(|_| faults.is_empty()) else {
        return Err(
            Faults::of(faults).unwrap_or_else(|| Fault::new(from.policies, "cannot be loaded").into())
        );
    };
    // Plain policies declare nothing: each step-up that they name asks for a login of any kind.
    let any_login = || Requirement::Authentication { acr_values: Vec::new(), max_age_s: Some(0) };
    let named = policies.iter().filter_map(|(_, policy)| engine::annotation(policy, "step_up"));
    let settings = Settings {
        on_policy_error: from.on_policy_error,
        step_up: named.map(|name| (name.into(), any_login())).collect(),
        ..Settings::named("cedar")
    };
    let parts = Parts {
        baselines: None,
        settings,
        digest: digest(&files).to_string().into(),
        policies,
        schema: schema.clone(),
        entities,
        routes: None,
    };
    match Snapshot::given(parts) {
        Ok(snapshot) => Ok(CedarLoaded { snapshot, schema, warnings }),
        Err(faults) => {
            Err(Faults::of(faults).unwrap_or_else(|| Fault::new(from.policies, "cannot be compiled").into()))
        }
    }
}

fn read_text(path: &Path, faults: &mut Vec<Fault>) -> Option<String> {
    let bytes = read(path, path, &mut 0).map_err(|fault| faults.push(fault)).ok()?;
    String::from_utf8(bytes)
        .map_err(|error| faults.push(Fault::new(path, format!("is not UTF-8: {error}"))))
        .ok()
}

fn schema(path: &Path, faults: &mut Vec<Fault>) -> Option<Schema> {
    let text = read_text(path, faults)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        return Schema::from_json_str(&text)
            .map_err(|error| faults.push(Fault::new(path, chain(&error))))
            .ok();
    }
    Schema::from_cedarschema_str(&text)
        .map(|(schema, _)| schema)
        .map_err(|error| faults.push(Fault::new(path, chain(&error)).labelled_by(&text, &error)))
        .ok()
}

fn entities(path: &Path, schema: Option<&Schema>, faults: &mut Vec<Fault>) -> Option<Entities> {
    let text = read_text(path, faults)?;
    Entities::from_json_str(&text, schema)
        .map_err(|error| faults.push(Fault::new(path, chain(&error)).labelled_by(&text, &error)))
        .ok()
}
