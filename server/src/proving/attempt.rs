//! Attempts in scenario files: one by one or as a table, with the verdicts that are expected.

use std::collections::BTreeMap;

use cardea_core::verdict::Decision;
use cardea_policy_store::fault::Fault;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::request;
use super::scenario::{Place, Source};
use super::told::TokenTold;
use super::words::{ActionNamed, Many, Named};

/// Most repetitions of one attempt; enough to show that repetition changes nothing.
pub const TIMES_MAX: u32 = 1000;

/// An attempt and the verdict that is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptTold {
    /// Shown instead of who wants what.
    pub name: Option<String>,
    /// Who acts.
    pub principal: Named,
    /// What it wants to do.
    pub action: ActionNamed,
    /// What it wants to do it to.
    pub resource: Named,
    /// What the enforcement point sends.
    #[serde(default)]
    pub request: BTreeMap<String, Value>,
    /// Id of the session.
    pub session: Option<String>,
    /// Id of the approved task.
    #[serde(rename = "task")]
    pub task_id: Option<String>,
    /// Those on whose behalf the principal acts, root first.
    #[serde(default)]
    pub delegation: Many<Named>,
    /// The token.
    pub token: Option<TokenTold>,
    /// How often it is made; each verdict must be the expected one.
    pub times: Option<u32>,
    /// The answer that is expected.
    pub expect: Expected,
    /// Reason codes that are expected, exactly.
    pub reasons: Option<Many<String>>,
    /// Ids of the determining policies that are expected, exactly.
    pub policies: Option<Many<String>>,
    /// Names of the requirements that are expected, exactly.
    pub requirements: Option<Many<String>>,
    /// Obligations that are expected, exactly.
    pub obligations: Option<Many<String>>,
    /// Ids of the policies that are expected to fail, exactly.
    pub errors: Option<Many<String>>,
    /// A part of what the caller is told first.
    pub message: Option<String>,
}

/// An expected answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// The action may run.
    Allow,
    /// It may run once the requirements are met.
    StepUp,
    /// It must not run.
    Deny,
}

impl From<Expected> for Decision {
    fn from(expected: Expected) -> Self {
        match expected {
            Expected::Allow => Self::Allow,
            Expected::StepUp => Self::StepUp,
            Expected::Deny => Self::Deny,
        }
    }
}

impl AttemptTold {
    /// What it is called in reports.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let behind: Vec<String> = self.delegation.0.iter().map(Named::to_string).collect();
            let behind =
                if behind.is_empty() { String::new() } else { format!(" for {}", behind.join(", ")) };
            format!("{}{behind} {} {}", self.principal, self.action, self.resource)
        })
    }

    /// The attempt as an enforcement point would send it at this time.
    ///
    /// # Errors
    /// What the schema does not know, in words.
    pub fn message(&self, snapshot: &Snapshot, now_ms: i64) -> Result<v1::Attempt, String> {
        let ActionNamed(action) = &self.action;
        let context = match snapshot.action(&action.type_name, &action.id) {
            Some(action) => request::fields(&self.request, action, snapshot)?,
            None => BTreeMap::new(),
        };
        Ok(v1::Attempt {
            id: String::new(),
            principal: Some(self.principal.reference()),
            action: Some(action.reference()),
            resource: Some(self.resource.reference()),
            context,
            session_id: self.session.clone().unwrap_or_default(),
            delegation: self.delegation.0.iter().map(Named::reference).collect(),
            token: self.token.as_ref().map(|token| token.message(now_ms)),
            at_least_version: 0,
            task_id: self.task_id.clone().unwrap_or_default(),
        })
    }
}

/// Attempts that share most of what they say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    #[serde(default)]
    defaults: Map<String, Value>,
    columns: Vec<String>,
    rows: Vec<Spanned<Vec<Value>>>,
}

impl Table {
    /// The attempt of each row, with the place of the row.
    pub(super) fn rows(self, source: &Source<'_>, table: Place) -> Vec<Result<(Place, AttemptTold), Fault>> {
        let Self { defaults, columns, rows } = self;
        let repeated =
            columns.iter().enumerate().find(|(at, name)| columns.iter().take(*at).any(|one| one == *name));
        if let Some((_, name)) = repeated {
            let fault = source.fault(table, format!("column `{name}` stands twice"));
            return vec![Err(fault.help("remove one of them"))];
        }
        if rows.is_empty() {
            return vec![Err(source
                .fault(table, "the table has no rows")
                .help("add rows, or remove the step"))];
        }
        rows.into_iter().map(|row| attempt(source, &defaults, &columns, row)).collect()
    }
}

fn attempt(
    source: &Source<'_>,
    defaults: &Map<String, Value>,
    columns: &[String],
    row: Spanned<Vec<Value>>,
) -> Result<(Place, AttemptTold), Fault> {
    let place = Place::from(row.referenced);
    let (cells, wanted) = (row.value.len(), columns.len());
    if cells != wanted {
        let fault = source.fault(place, format!("the row has {cells} cells, and the table {wanted} columns"));
        return Err(fault.help("write one cell for each column, `~` for the default"));
    }
    let mut fields = defaults.clone();
    for (column, cell) in columns.iter().zip(row.value) {
        if !cell.is_null() {
            fields.insert(column.clone(), cell);
        }
    }
    let attempt = serde_json::from_value(Value::Object(fields)).map_err(|error| {
        let fault = source.fault(place, format!("the row makes no attempt: {error}"));
        fault.help("columns and defaults are keys of an attempt; docs/testing.md lists them")
    })?;
    Ok((place, attempt))
}
