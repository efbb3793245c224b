//! `monitor.toml`: how attempts are read and judged. See `examples/monitoring`.

use std::collections::BTreeMap;
use std::path::Path;

use cardea_core::behavior::burst::Counting;
use cardea_core::behavior::{Classes, Rules};
use serde::Deserialize;

use super::Fault;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where an attempt says what.
    #[serde(default)]
    pub attempts: Fields,
    /// Whom or what an action is done to, by action: the arguments that say so. An action that is not named here has the resource.
    #[serde(default)]
    pub targets: BTreeMap<String, Vec<String>>,
    /// What kind of thing each action does.
    #[serde(default)]
    pub classes: Classes,
    /// How deviations are judged.
    #[serde(default)]
    pub rules: Rules,
    /// How bursts are counted, if `rules.burst_score` looks for them.
    #[serde(default)]
    pub burst: Counting,
}

/// `[attempts]`: keys of an attempt's `context`; empty: not there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The approved task.
    pub task: String,
    /// Arguments, an object.
    pub arguments: String,
    /// External references, a list of texts.
    pub references: String,
    /// Arguments in whose texts external references are looked for, at any place and depth; `*`: all of them.
    pub search: Vec<String>,
    /// What a tool says of itself, an object with `destructiveHint` and `openWorldHint`. It can only make a class stricter.
    pub hints: String,
    /// Where it comes from.
    pub network: String,
    /// Age of its token, in seconds.
    pub token_age_s: String,
    /// Whether policy denies it.
    pub denied: String,
    /// What the resource says.
    pub resource: Resource,
    /// Keys of arguments and resources that hold several names, separated by commas or as a JSON list.
    pub lists: Vec<String>,
    /// What one approved run is.
    pub run: Run,
    /// What stands before the suite in a principal; the rest and the task, `SUITE/TASK`, are the key in the file of tasks.
    pub principal_prefix: String,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            task: "task".to_owned(),
            arguments: "args".to_owned(),
            references: "refs".to_owned(),
            search: Vec::new(),
            hints: String::new(),
            network: "src_ip".to_owned(),
            token_age_s: "token_age_s".to_owned(),
            denied: "rbac_deny".to_owned(),
            resource: Resource::default(),
            lists: Vec::new(),
            run: Run::default(),
            principal_prefix: String::new(),
        }
    }
}

/// What the resource of an attempt says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Nothing that is the same from run to run.
    Ignored,
    /// The target.
    #[default]
    Target,
    /// `key:target`, where the key is that of the argument which names it.
    KeyAndTarget,
}

/// What one approved run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Run {
    /// A session.
    #[default]
    Session,
    /// An attempt: for identities that never end what they do.
    Attempt,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It cannot be read, or holds what nothing knows.
    pub fn read(path: &Path) -> Result<Self, Fault> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Fault::of(path, format!("cannot be read: {error}")))?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            let line = error
                .span()
                .map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
            let what = format!("{}; see docs/monitoring.md", error.message());
            Fault { place: format!("{}:{line}", path.display()), what }
        })?;
        if config.burst.tick_s == 0 {
            return Err(Fault::of(path, "`burst.tick_s` is 0; a tick is at least one second long"));
        }
        Ok(config)
    }
}
