//! A recorded attempt as the monitor sees it: what its configuration says is the task, the targets, the references.

use cardea_core::behavior::attempt::{bounded, is_target, pieces};
use cardea_core::behavior::{ActionClass, Hints, Observed, Scope, find};
use serde_json::Value;

use super::attempts::Recorded;
use super::config::{Config, Resource};

/// See the module. Owns its texts, so that a view can borrow them.
#[derive(Clone, Debug)]
pub struct Prepared<'r> {
    recorded: &'r Recorded,
    class: ActionClass,
    targets: Vec<&'r str>,
    references: Vec<&'r str>,
}

impl<'r> Prepared<'r> {
    /// Reads an attempt as the configuration says.
    #[must_use]
    pub fn new(config: &Config, recorded: &'r Recorded) -> Self {
        let told = recorded.context.get(&config.attempts.references).and_then(Value::as_array);
        let told = told.into_iter().flatten().filter_map(Value::as_str);
        let mut searched = Vec::new();
        for value in searched_arguments(config, recorded) {
            all_texts(value, &mut searched);
        }
        let found = searched.into_iter().flat_map(find::references);
        let references: Vec<&str> = bounded(told.chain(found)).collect();
        let named = named_targets(config, recorded).into_iter();
        let targets = bounded(named.filter(|target| is_target(target, &references))).collect();
        let class = config.classes.of(&recorded.action).hinted(hints(config, recorded));
        Self { recorded, class, targets, references }
    }

    /// The view that is learned from and compared; what needs state beyond the attempt is for the caller to fill in.
    #[must_use]
    pub fn observed<'a>(&'a self, config: &Config) -> Observed<'a> {
        let context = &self.recorded.context;
        let fields = &config.attempts;
        Observed {
            action: &self.recorded.action,
            class: self.class,
            targets: &self.targets,
            references: &self.references,
            network: context.get(&fields.network).and_then(Value::as_str).unwrap_or_default(),
            token_age_s: context.get(&fields.token_age_s).and_then(whole_seconds),
            is_denied: context.get(&fields.denied).and_then(Value::as_bool).unwrap_or(false),
            names_task: self.task(config).is_some(),
            scope: Scope::Undeclared,
            ..Observed::default()
        }
    }

    /// The task that it names.
    #[must_use]
    pub fn task(&self, config: &Config) -> Option<&'r str> {
        let task = self.recorded.context.get(&config.attempts.task).and_then(Value::as_str);
        task.filter(|task| !task.is_empty())
    }
}

/// An age that is not whole counts as the younger: the strict side.
fn whole_seconds(age: &Value) -> Option<u64> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
    let of_float = || age.as_f64().map(|age| age.max(0.0) as u64);
    age.as_u64().or_else(of_float)
}

fn named_targets<'r>(config: &Config, recorded: &'r Recorded) -> Vec<&'r str> {
    let is_list = |key: &str| config.attempts.lists.iter().any(|list| list == key);
    if let Some(keys) = config.targets.get(&recorded.action) {
        let Some(Value::Object(arguments)) = recorded.context.get(&config.attempts.arguments) else {
            return Vec::new();
        };
        let given = keys.iter().filter_map(|key| Some((key, arguments.get(key)?)));
        return given.flat_map(|(key, value)| texts(value, is_list(key))).collect();
    }
    let resource = recorded.resource.as_str();
    match config.attempts.resource {
        Resource::Ignored => Vec::new(),
        _ if resource.is_empty() || resource == "-" => Vec::new(),
        Resource::Target => vec![resource],
        Resource::KeyAndTarget => match resource.split_once(':') {
            Some((key, names)) if is_list(key) => pieces(names).collect(),
            Some((_, name)) => vec![name],
            None => vec![resource],
        },
    }
}

fn searched_arguments<'r>(config: &Config, recorded: &'r Recorded) -> impl Iterator<Item = &'r Value> {
    let arguments = recorded.context.get(&config.attempts.arguments).and_then(Value::as_object);
    let is_searched = |key: &str| config.attempts.search.iter().any(|one| one == key || one == "*");
    let arguments = arguments.into_iter().flatten();
    arguments.filter(move |(key, _)| is_searched(key)).map(|(_, value)| value)
}

/// Every text in a value, however deep; JSON is read to a depth of 128.
fn all_texts<'r>(value: &'r Value, texts: &mut Vec<&'r str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(list) => list.iter().for_each(|value| all_texts(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| all_texts(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hints(config: &Config, recorded: &Recorded) -> Hints {
    let told = recorded.context.get(&config.attempts.hints).and_then(Value::as_object);
    let is_true = |name| told.and_then(|told| told.get(name)).and_then(Value::as_bool).unwrap_or(false);
    Hints { is_destructive: is_true("destructiveHint"), is_open_world: is_true("openWorldHint") }
}

/// The names in an argument. Numbers and other things that are no text name nothing.
fn texts(value: &Value, is_list: bool) -> Vec<&str> {
    match value {
        Value::String(text) if is_list => pieces(text).collect(),
        Value::String(text) => vec![text.as_str()],
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}
