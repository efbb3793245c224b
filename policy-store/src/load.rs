//! A bundle in directory form, read, checked and compiled; and plain Cedar files for comparison runs.
//!
//! Every fault of a bundle is reported at once, with file, line and remedy. Limits, enforced before parsing:
//! [`FILES_MAX`] files, [`FILE_BYTES_MAX`] bytes each, [`BUNDLE_BYTES_MAX`] bytes in all.

mod cedar;
mod classes;
mod links;
mod nesting;
mod route_schema;
mod validate;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use cardea_behavior::Kept;
use cardea_behavior::kept::Unkept;
use cedar_policy::{Entities, PolicyId, PolicySet, Schema, SchemaFragment};
use smol_str::SmolStr;

use self::links::Collected;
use self::route_schema::RouteSchema;
use self::validate::{Places, placed, validate};
use crate::digest::Digest;
use crate::engine;
use crate::fault::{Fault, Faults, SourceText};
use crate::lint::rules;
use crate::masks;
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
pub const SINGLE_FILES: [&str; 6] =
    ["bundle.toml", "schema.cedarschema", "entities.json", "links.json", "routes.toml", "baselines.json"];
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

/// Room for the deepest policy that passes [`nesting`].
const STACK_BYTES: usize = 64 << 20;

/// Runs what recurses over policies with room for the deepest that passes [`policy_file`].
///
/// # Errors
/// Those of `work`, and when it panics.
pub fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, Faults> + Send) -> Result<T, Faults> {
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
    compile(parse(files, Parsing::InParts), files)
}

/// A bundle's files, each read as far as it can be.
pub(crate) struct Parsed<'f> {
    pub(crate) settings: Option<Settings>,
    pub(crate) schema: Option<Schema>,
    /// The policy files that could be parsed.
    pub(crate) sources: Vec<Source<'f>>,
    /// The policies of `sources` in the order of the bundle, each with the id to show.
    pub(crate) policies: Vec<(SmolStr, cedar_policy::Policy)>,
    /// Where each of `policies` is written.
    pub(crate) places: Places,
    pub(crate) entities: Option<Entities>,
    pub(crate) routes: Option<RouteTable>,
    pub(crate) baselines: Option<Kept>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) warnings: Vec<Fault>,
}

pub(crate) fn parse(files: &Files, parsing: Parsing) -> Parsed<'_> {
    let mut faults = Vec::new();
    let mut settings = settings(files, &mut faults);
    let schema = schema(files, &mut faults);
    if let Some(settings) = &mut settings {
        settings.behavior.annotated = classes::annotated(files, &mut faults);
    }
    if let (Some(settings), Some(schema)) = (&settings, &schema) {
        faults.extend(masks::unknown(&settings.audit, schema));
    }
    let mut warnings = Vec::new();
    // Entities and policies need nothing of each other, and each takes about half of the time.
    let (policy_side, entity_side) = std::thread::scope(|scope| {
        let entity_side = std::thread::Builder::new().spawn_scoped(scope, || {
            let mut faults = Vec::new();
            let entities = schema.as_ref().and_then(|schema| entities(files, schema, &mut faults));
            (entities, faults)
        });
        let policy_side = {
            let sources = policy_sources(files, parsing, &mut faults);
            if sources.is_empty() && faults.is_empty() {
                let message = "holds no policy, so everything is denied";
                warnings.push(Fault::of(&rules::NO_POLICIES, "policies", message));
            }
            let (policies, set, places) = collect(files, &sources, &mut faults);
            if let Some(schema) = &schema {
                validate(schema, &set, (&sources, &places), &mut faults, &mut warnings);
            }
            (sources, policies, places)
        };
        let entity_side = entity_side.ok().and_then(|entity_side| entity_side.join().ok());
        (policy_side, entity_side)
    });
    let (sources, policies, places) = policy_side;
    let (entities, entity_faults) = entity_side.unwrap_or_else(|| {
        let fault =
            Fault::of(&rules::ENTITIES_INVALID, "entities.json", "reading it panicked; this is a bug");
        (None, vec![fault])
    });
    faults.extend(entity_faults);
    let routes = routes(files, schema.as_ref(), &mut faults);
    let baselines = baselines(files, &mut faults);
    Parsed { settings, schema, sources, policies, places, entities, routes, baselines, faults, warnings }
}

pub(crate) fn compile(parsed: Parsed<'_>, files: &Files) -> Result<Loaded, Faults> {
    let Parsed { settings, schema, sources, policies, places, entities, routes, baselines, faults, warnings } =
        parsed;
    let digest = digest(files).to_string().into();
    let parts = match (settings, schema, entities) {
        (Some(settings), Some(schema), Some(entities)) if faults.is_empty() => {
            Parts { settings, digest, policies, schema: Some(schema), entities, routes, baselines }
        }
        _ => {
            return Err(Faults::of(faults).unwrap_or_else(|| Fault::new("bundle", "cannot be loaded").into()));
        }
    };
    match Snapshot::gathered(parts) {
        Ok(snapshot) => Ok(Loaded { snapshot, warnings }),
        Err(faults) => {
            let faults = faults.into_iter().map(|fault| placed(fault, &sources, &places)).collect();
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
        faults.push(Fault::of(&rules::FILE_MISSING, name, "is missing"));
        return None;
    };
    std::str::from_utf8(bytes).map_err(|error| faults.push(not_text(name, error))).ok()
}

fn not_text(file: impl Into<PathBuf>, error: std::str::Utf8Error) -> Fault {
    Fault::of(&rules::FILE_NOT_TEXT, file, format!("is not UTF-8: {error}"))
}

fn settings(files: &Files, faults: &mut Vec<Fault>) -> Option<Settings> {
    let text = text(files, "bundle.toml", faults)?;
    match toml::from_str::<Settings>(text) {
        Ok(settings) => {
            faults.extend(settings.faults().into_iter().map(|(key, message)| {
                let fault = Fault::of(&rules::SETTINGS_INVALID, "bundle.toml", message);
                match text.find(key) {
                    Some(offset) => fault.at(text, offset, key.len()),
                    None => fault,
                }
            }));
            Some(settings)
        }
        Err(error) => {
            let fault = Fault::of(&rules::SETTINGS_INVALID, "bundle.toml", error.message().to_owned());
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
            let fault = Fault::of(&rules::SCHEMA_INVALID, name, chain(&error));
            faults.push(fault.labelled_by(text, &error));
            return None;
        }
    };
    let (cardea, _) = SchemaFragment::from_cedarschema_str(crate::fragment::SCHEMA)
        .map_err(|error| faults.push(Fault::new("Cardea's own schema fragment", chain(&error))))
        .ok()?;
    Schema::from_schema_fragments([cardea, own])
        .map_err(|error| {
            faults.push(Fault::of(&rules::SCHEMA_INVALID, name, chain(&error)).labelled_by(text, &error));
        })
        .ok()
}

fn entities(files: &Files, schema: &Schema, faults: &mut Vec<Fault>) -> Option<Entities> {
    let name = "entities.json";
    let parsed = match files.get(Path::new(name)) {
        None => schema.action_entities(),
        Some(_) => engine::entities_from_json(text(files, name, faults)?, schema),
    };
    parsed.map_err(|error| faults.push(Fault::of(&rules::ENTITIES_INVALID, name, chain(&error)))).ok()
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
                Fault::of(&rules::ROUTES_INVALID, name, fault.kind.to_string()).help(fault.kind.help()).at(
                    text,
                    fault.span.start,
                    fault.span.len(),
                )
            }));
        })
        .ok()
}

fn baselines(files: &Files, faults: &mut Vec<Fault>) -> Option<Kept> {
    let name = "baselines.json";
    files.get(Path::new(name))?;
    let text = text(files, name, faults)?;
    Kept::parse(text.as_bytes())
        .map_err(|unkept| {
            let fault = Fault::of(&rules::BASELINES_INVALID, name, unkept.to_string());
            faults.push(match unkept {
                Unkept::Malformed { line, column, .. } => fault.at(text, offset(text, line, column), 1),
                Unkept::Format(_)
                | Unkept::Unapproved
                | Unkept::History
                | Unkept::TooMany
                | Unkept::TooLarge { .. } => fault,
            });
        })
        .ok()
}

/// Where the column of a line lies, each from 1, in bytes.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (before + column.saturating_sub(1)).min(text.len())
}

/// One policy file.
pub(crate) struct Source<'f> {
    pub(crate) path: &'f Path,
    pub(crate) text: &'f str,
    parts: Vec<Part>,
    shared: OnceCell<SourceText>,
}

/// A part of a policy file, parsed by itself.
struct Part {
    /// Where it begins in the file, in bytes.
    base: usize,
    set: PolicySet,
}

/// How policy files are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parsing {
    /// Each as a whole, so that places within policies are those of the file.
    Whole,
    /// In parts, on several threads: Cedar's syntax tree of a large file takes a hundred times its size in memory.
    InParts,
}

/// Size of a part, in bytes: about a thousand policies.
const PART_BYTES: usize = 256 << 10;
/// Most threads that parse.
const PARSERS_MAX: usize = 4;

impl Source<'_> {
    /// The text for findings, made for the first of them.
    pub(crate) fn shared(&self) -> &SourceText {
        self.shared.get_or_init(|| SourceText::new(self.text))
    }
}

/// Whether a policy file can be read as the service reads it.
///
/// # Errors
/// Why it cannot: not text, nested too deep, or not Cedar.
pub fn policy_file<'f>(path: &'f Path, bytes: &'f [u8]) -> Result<&'f str, Faults> {
    let mut faults = Vec::new();
    match (source(path, bytes, Parsing::Whole, &mut faults), Faults::of(faults)) {
        (Some(source), None) => Ok(source.text),
        (_, faults) => Err(faults.unwrap_or_else(|| Fault::new(path, "cannot be read").into())),
    }
}

fn policy_sources<'f>(files: &'f Files, parsing: Parsing, faults: &mut Vec<Fault>) -> Vec<Source<'f>> {
    let cedar =
        files.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "cedar"));
    cedar.filter_map(|(path, bytes)| source(path, bytes, parsing, faults)).collect()
}

fn source<'f>(
    path: &'f Path,
    bytes: &'f [u8],
    parsing: Parsing,
    faults: &mut Vec<Fault>,
) -> Option<Source<'f>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            faults.push(not_text(path, error));
            return None;
        }
    };
    if let Some((offset, what)) = nesting::too_deep(text) {
        faults.push(Fault::of(&rules::POLICY_TOO_DEEP, path, what).at(text, offset, 1));
        return None;
    }
    let whole = || Ok(vec![Part { base: 0, set: text.parse()? }]);
    let parsed: Result<Vec<Part>, cedar_policy::ParseErrors> = match parsing {
        // Errors are told of the whole, where they have their place.
        Parsing::InParts if text.len() > 2 * PART_BYTES => in_parts(text).map_or_else(whole, Ok),
        Parsing::InParts | Parsing::Whole => whole(),
    };
    match parsed {
        Ok(parts) => Some(Source { path, text, parts, shared: OnceCell::new() }),
        Err(errors) => {
            let shared = SourceText::new(text);
            faults.extend(errors.iter().map(|error| {
                Fault::of(&rules::POLICY_SYNTAX, path, error.to_string()).labelled_within(&shared, error)
            }));
            None
        }
    }
}

/// Parses a file in parts; `None` if any of them cannot be parsed.
fn in_parts(text: &str) -> Option<Vec<Part>> {
    let pieces = nesting::pieces(text, PART_BYTES);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, PARSERS_MAX);
    let next = AtomicUsize::new(0);
    let parse = || {
        let mut parts = Vec::new();
        while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
            let set = text.get(piece.clone())?.parse().ok()?;
            parts.push(Part { base: piece.start, set });
        }
        Some(parts)
    };
    let mut parts = std::thread::scope(|scope| {
        let start = |_| std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, parse).ok();
        let parsers: Vec<_> = (0..threads).map(start).collect();
        let mut all = Vec::new();
        for parser in parsers {
            all.extend(parser?.join().ok()??);
        }
        Some(all)
    })?;
    parts.sort_by_key(|part| part.base);
    Some(parts)
}

/// Joins the policies of all files, and the links of their templates: `policy0`, `policy1`, … count over the files in the order of their paths,
/// as Cedar counts within one; `@id` replaces that name.
fn collect(
    files: &Files,
    sources: &[Source<'_>],
    faults: &mut Vec<Fault>,
) -> (Vec<(SmolStr, cedar_policy::Policy)>, PolicySet, Places) {
    let mut policies = Vec::new();
    let mut places = Places::default();
    let mut set = PolicySet::new();
    let mut first: BTreeMap<SmolStr, &Path> = BTreeMap::new();
    let mut number = 0;
    for (file, source) in sources.iter().enumerate() {
        let own = source.parts.iter().flat_map(|part| {
            let mut own: Vec<_> = part.set.policies().collect();
            own.sort_by_key(|policy| written_at(policy.id()));
            own.into_iter().map(|policy| (part.base, policy))
        });
        for (base, policy) in own {
            let id = match engine::annotation(policy, "id") {
                Some(id) if !id.is_empty() => SmolStr::new(id),
                _ => SmolStr::from(format!("policy{number}")),
            };
            number += 1;
            let mut unique = id.to_string();
            if let Some(before) = first.insert(id.clone(), source.path) {
                // Within Cedar's own set ids are unique, whatever `@id` says.
                unique = format!("{id} (policy {number})");
                let message = format!("policy id `{id}` is also used in {}", before.display());
                let fault = Fault::of(&rules::DUPLICATE_ID, source.path, message);
                faults.push(match engine::span_of(policy) {
                    Some(span) => fault.within(source.shared(), base + span.start, span.len()),
                    None => fault,
                });
            }
            places.add(&unique, (file, base), engine::span_of(policy));
            let policy = policy.new_id(PolicyId::new(&unique));
            if let Err(error) = set.add(policy.clone()) {
                faults.push(Fault::new(source.path, chain(&error)));
            }
            policies.push((id, policy));
        }
    }
    links::add(
        files,
        sources,
        &mut Collected { policies: &mut policies, set: &mut set, places: &mut places, faults },
    );
    (policies, set, places)
}

/// Cedar numbers the policies and templates of a text in the order in which they are written.
fn written_at(id: &PolicyId) -> u64 {
    id.to_string().strip_prefix("policy").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
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
