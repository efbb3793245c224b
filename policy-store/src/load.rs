//! A bundle in directory form, read, checked and compiled; and plain Cedar files for comparison runs.
//!
//! Every fault of a bundle is reported at once, with file, line and remedy. Limits, enforced before parsing:
//! [`FILES_MAX`] files, [`FILE_BYTES_MAX`] bytes each, [`BUNDLE_BYTES_MAX`] bytes in all.

mod cedar;
mod nesting;
mod route_schema;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cedar_policy::{Entities, PolicyId, PolicySet, Schema, SchemaFragment, ValidationMode, Validator};
use miette::Diagnostic;
use smol_str::SmolStr;

use self::route_schema::RouteSchema;
use crate::digest::Digest;
use crate::fault::{Fault, Faults};
use crate::routes::RouteTable;
use crate::settings::Settings;
use crate::snapshot::{Parts, Snapshot};
pub use cedar::{CedarLoaded, CedarSources, cedar};

/// Most files in a bundle: one policy a file would still allow 100,000 policies in ten thousand files.
pub const FILES_MAX: usize = 10_000;
/// Largest file, in bytes: 100,000 entities are about 30 MB of JSON.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Largest bundle, in bytes.
pub const BUNDLE_BYTES_MAX: u64 = 256 << 20;

/// The files that a bundle has at most one of.
pub const SINGLE_FILES: [&str; 5] =
    ["bundle.toml", "schema.cedarschema", "entities.json", "links.json", "routes.toml"];
/// The folders of a bundle, each with the extension of its files; files in any depth.
pub const TREES: [(&str, &str); 2] = [("policies", "cedar"), ("tests", "yaml")];

/// What `bundle check` says of a bundle that can serve.
#[derive(Debug)]
pub struct Loaded {
    /// The bundle, compiled.
    pub snapshot: Snapshot,
    /// What deserves attention and does not stop the bundle.
    pub warnings: Vec<Fault>,
}

/// Loads a bundle from a directory.
///
/// # Errors
/// Every fault that was found.
pub fn directory(dir: &Path) -> Result<Loaded, Faults> {
    files(&read_directory(dir)?)
}

/// Loads a bundle from its files, by their paths within it.
///
/// # Errors
/// Every fault that was found.
pub fn files(files: &Files) -> Result<Loaded, Faults> {
    on_deep_stack(|| load(files))
}

/// Runs what recurses over policies with room for the deepest that [`nesting`] lets pass.
fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, Faults> + Send) -> Result<T, Faults> {
    const STACK_BYTES: usize = 64 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let thread =
            thread.map_err(|error| Fault::new("bundle", format!("no thread to load it on: {error}")))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(Fault::new("bundle", "loading it panicked; this is a bug").into()))
    })
}

fn load(files: &Files) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let settings = settings(files, &mut faults);
    let schema = schema(files, &mut faults);
    let sources = policy_sources(files, &mut faults);
    let mut warnings = Vec::new();
    if sources.is_empty() && faults.is_empty() {
        warnings.push(Fault::new("policies", "holds no policy, so everything is denied"));
    }
    let (policies, set) = collect(&sources, &mut faults);
    if let Some(schema) = &schema {
        validate(schema, &set, &sources, &mut faults, &mut warnings);
    }
    let entities = schema.as_ref().and_then(|schema| entities(files, schema, &mut faults));
    let routes = routes(files, schema.as_ref(), &mut faults);
    let digest = digest(files).to_string().into();
    let parts = match (settings, schema, entities) {
        (Some(settings), Some(schema), Some(entities)) if faults.is_empty() => {
            Parts { settings, digest, policies, schema: Some(schema), entities, routes }
        }
        _ => {
            return Err(Faults::of(faults).unwrap_or_else(|| Fault::new("bundle", "cannot be loaded").into()));
        }
    };
    match Snapshot::gathered(parts) {
        Ok(snapshot) => Ok(Loaded { snapshot, warnings }),
        Err(faults) => {
            let faults = faults.into_iter().map(|fault| placed(fault, &set, &sources)).collect();
            Err(Faults::of(faults).unwrap_or_else(|| Fault::new("bundle", "cannot be compiled").into()))
        }
    }
}

/// A bundle's files, by their paths within it.
pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Reads the files of a bundle from its directory, without looking into them.
///
/// # Errors
/// What cannot be read, or is beyond a limit.
pub fn read_directory(dir: &Path) -> Result<Files, Faults> {
    if !dir.is_dir() {
        return Err(Fault::new(dir, "is not a directory")
            .help("name the directory that holds bundle.toml")
            .into());
    }
    let mut files = BTreeMap::new();
    let mut total = 0;
    for name in SINGLE_FILES {
        let path = dir.join(name);
        if path.exists() {
            files.insert(PathBuf::from(name), read(&path, Path::new(name), &mut total)?);
        }
    }
    for (name, extension) in TREES {
        let tree = dir.join(name);
        if tree.is_dir() {
            walk(&tree, dir, extension, &mut files, &mut total)?;
        }
    }
    Ok(files)
}

fn walk(dir: &Path, root: &Path, extension: &str, files: &mut Files, total: &mut u64) -> Result<(), Faults> {
    let unreadable =
        |error: std::io::Error| Faults::from(Fault::new(dir, format!("cannot be read: {error}")));
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, root, extension, files, total)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            let bytes = read(&path, &relative, total)?;
            files.insert(relative, bytes);
            if files.len() > FILES_MAX {
                return Err(Fault::new(dir, format!("more than {FILES_MAX} files"))
                    .help("put more than one policy into a file")
                    .into());
            }
        }
    }
    Ok(())
}

fn read(path: &Path, shown: &Path, total: &mut u64) -> Result<Vec<u8>, Fault> {
    let unreadable = |error: std::io::Error| Fault::new(shown, format!("cannot be read: {error}"));
    let size = fs::metadata(path).map_err(unreadable)?.len();
    *total += size;
    if size > FILE_BYTES_MAX || *total > BUNDLE_BYTES_MAX {
        return Err(Fault::new(shown, format!("too large: {size} bytes"))
            .help(format!("at most {FILE_BYTES_MAX} bytes a file, {BUNDLE_BYTES_MAX} a bundle")));
    }
    fs::read(path).map_err(unreadable)
}

fn text<'f>(files: &'f Files, name: &str, faults: &mut Vec<Fault>) -> Option<&'f str> {
    let Some(bytes) = files.get(Path::new(name)) else {
        faults
            .push(Fault::new(name, "is missing").help("every bundle has bundle.toml and schema.cedarschema"));
        return None;
    };
    std::str::from_utf8(bytes)
        .map_err(|error| faults.push(Fault::new(name, format!("is not UTF-8: {error}"))))
        .ok()
}

fn settings(files: &Files, faults: &mut Vec<Fault>) -> Option<Settings> {
    let text = text(files, "bundle.toml", faults)?;
    match toml::from_str::<Settings>(text) {
        Ok(settings) => {
            faults.extend(settings.faults().into_iter().map(|(key, message)| {
                let fault = Fault::new("bundle.toml", message);
                match text.find(key) {
                    Some(offset) => fault.at(text, offset, key.len()),
                    None => fault,
                }
            }));
            Some(settings)
        }
        Err(error) => {
            let fault = Fault::new("bundle.toml", error.message().to_owned());
            faults.push(match error.span() {
                Some(span) => fault.at(text, span.start, span.len()),
                None => fault,
            });
            None
        }
    }
}

fn schema(files: &Files, faults: &mut Vec<Fault>) -> Option<Schema> {
    let name = "schema.cedarschema";
    let text = text(files, name, faults)?;
    let own = match SchemaFragment::from_cedarschema_str(text) {
        Ok((own, _)) => own,
        Err(error) => {
            faults.push(Fault::new(name, chain(&error)).labelled_by(text, &error));
            return None;
        }
    };
    let (cardea, _) = SchemaFragment::from_cedarschema_str(crate::fragment::SCHEMA)
        .map_err(|error| faults.push(Fault::new("Cardea's own schema fragment", chain(&error))))
        .ok()?;
    Schema::from_schema_fragments([cardea, own])
        .map_err(|error| faults.push(Fault::new(name, chain(&error)).labelled_by(text, &error)))
        .ok()
}

fn entities(files: &Files, schema: &Schema, faults: &mut Vec<Fault>) -> Option<Entities> {
    let name = "entities.json";
    let parsed = match files.get(Path::new(name)) {
        None => schema.action_entities(),
        Some(_) => Entities::from_json_str(text(files, name, faults)?, Some(schema)),
    };
    parsed
        .map_err(|error| {
            faults.push(
                Fault::new(name, chain(&error))
                    .help("entities must follow the schema; see Cedar's entity JSON"),
            );
        })
        .ok()
}

fn routes(files: &Files, schema: Option<&Schema>, faults: &mut Vec<Fault>) -> Option<RouteTable> {
    let name = "routes.toml";
    files.get(Path::new(name))?;
    let text = text(files, name, faults)?;
    let parsed = RouteTable::parse(name, text);
    let checked = match schema {
        Some(schema) => parsed.and_then(|table| table.check(&mut RouteSchema::new(schema))),
        None => parsed,
    };
    checked
        .map_err(|found| {
            faults.extend(found.faults.iter().map(|fault| {
                Fault::new(name, fault.kind.to_string()).help(fault.kind.help()).at(
                    text,
                    fault.span.start,
                    fault.span.len(),
                )
            }));
        })
        .ok()
}

/// One policy file.
struct Source<'f> {
    path: &'f Path,
    text: &'f str,
    set: PolicySet,
}

fn policy_sources<'f>(files: &'f Files, faults: &mut Vec<Fault>) -> Vec<Source<'f>> {
    let cedar =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "cedar"));
    cedar.filter_map(|(path, bytes)| source(path, bytes, faults)).collect()
}

fn source<'f>(path: &'f Path, bytes: &'f [u8], faults: &mut Vec<Fault>) -> Option<Source<'f>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            faults.push(Fault::new(path, format!("is not UTF-8: {error}")));
            return None;
        }
    };
    if let Some((offset, what)) = nesting::too_deep(text) {
        let fault = Fault::new(path, what).help("split the policy, or move values into entities");
        faults.push(fault.at(text, offset, 1));
        return None;
    }
    match text.parse::<PolicySet>() {
        Ok(set) => Some(Source { path, text, set }),
        Err(errors) => {
            faults.extend(
                errors.iter().map(|error| Fault::new(path, error.to_string()).labelled_by(text, error)),
            );
            None
        }
    }
}

/// Joins the policies of all files: `policy0`, `policy1`, … count over the files in the order of their paths,
/// as Cedar counts within one; `@id` replaces that name.
fn collect(
    sources: &[Source<'_>],
    faults: &mut Vec<Fault>,
) -> (Vec<(SmolStr, cedar_policy::Policy)>, PolicySet) {
    let mut policies = Vec::new();
    let mut set = PolicySet::new();
    let mut first: BTreeMap<SmolStr, &Path> = BTreeMap::new();
    let mut number = 0;
    for source in sources {
        let mut own: Vec<_> = source.set.policies().collect();
        own.sort_by_key(|policy| written_at(policy));
        faults.extend(source.set.templates().map(|template| {
            Fault::new(source.path, format!("template `{}` has no link, so it says nothing", template.id()))
                .help("write a static policy, without `?principal` and `?resource`")
        }));
        for policy in own {
            let id = match policy.annotation("id") {
                Some(id) if !id.is_empty() => SmolStr::new(id),
                _ => SmolStr::from(format!("policy{number}")),
            };
            number += 1;
            let mut unique = id.to_string();
            if let Some(before) = first.insert(id.clone(), source.path) {
                // Within Cedar's own set ids are unique, whatever `@id` says.
                unique = format!("{id} (policy {number})");
                faults.push(
                    Fault::new(source.path, format!("policy id `{id}` is also used in {}", before.display()))
                        .help("give one of them another `@id`"),
                );
            }
            let policy = policy.new_id(PolicyId::new(&unique));
            if let Err(error) = set.add(policy.clone()) {
                faults.push(Fault::new(source.path, chain(&error)));
            }
            policies.push((id, policy));
        }
    }
    (policies, set)
}

/// Cedar numbers the policies of a text in the order in which they are written.
fn written_at(policy: &cedar_policy::Policy) -> u64 {
    policy.id().to_string().strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn validate(
    schema: &Schema,
    set: &PolicySet,
    sources: &[Source<'_>],
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<Fault>,
) {
    let result = Validator::new(schema.clone()).validate(set, ValidationMode::Strict);
    let placed = |policy: &PolicyId, message: String, diagnostic: &dyn Diagnostic| {
        let source = set.policy(policy).and_then(|policy| {
            let text = policy.to_cedar()?;
            sources.iter().find(|source| source.text.contains(&text))
        });
        match source {
            Some(source) => Fault::new(source.path, message).labelled_by(source.text, diagnostic),
            None => Fault::new("policies", message),
        }
    };
    faults
        .extend(result.validation_errors().map(|error| placed(error.policy_id(), error.to_string(), error)));
    warnings.extend(
        result.validation_warnings().map(|warning| placed(warning.policy_id(), warning.to_string(), warning)),
    );
    faults.sort_by(|a, b| (a.file(), a.line()).cmp(&(b.file(), b.line())));
}

/// Gives a fault of a policy the place where that policy is written.
fn placed(fault: Fault, set: &PolicySet, sources: &[Source<'_>]) -> Fault {
    let policy = fault.unplaced_policy().and_then(|id| set.policy(&PolicyId::new(id)));
    let Some(text) = policy.and_then(cedar_policy::Policy::to_cedar) else { return fault };
    let found = sources.iter().find_map(|source| Some((source, source.text.find(&text)?)));
    match found {
        Some((source, offset)) => fault.in_file(source.path).at(source.text, offset, text.len()),
        None => fault,
    }
}

/// Identifies a bundle in directory form: names and contents of its files.
#[must_use]
pub fn digest(files: &Files) -> Digest {
    Digest::of_parts(files.iter().flat_map(|(path, bytes)| [path.as_os_str().as_encoded_bytes(), bytes]))
}

/// An error with what caused it, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
