//! The situations of the matrix: the two that always are, and those of `tests/matrix.yaml`.

use std::collections::BTreeMap;
use std::path::Path;

use cardea_policy_store::fault::Fault;
use cardea_policy_store::load::Files;
use cardea_policy_store::settings::Requirement;
use cardea_policy_store::snapshot::Snapshot;
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::proving::scenario::{MATRIX_FILE, Source};
use crate::proving::told::{SessionTold, SignalTold, TokenTold};

/// Most situations: a column each is what a review can hold together.
const SITUATIONS_MAX: usize = 32;

/// What is known when all cells of a situation are judged.
#[derive(Clone, Debug)]
pub struct Situation {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// The session of the principal of each cell; none: the attempt names none.
    pub session: Option<SessionTold>,
    /// The token.
    pub token: Option<TokenTold>,
    /// What is reported about the principal beforehand.
    pub signals: Vec<SignalTold>,
}

/// All situations, and what the enforcement point sends.
#[derive(Clone, Debug)]
pub struct Situations {
    list: Vec<Situation>,
    request: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    request: BTreeMap<String, Spanned<BTreeMap<String, Value>>>,
    situations: BTreeMap<String, Spanned<Told>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Told {
    session: Option<SessionTold>,
    token: Option<TokenTold>,
    signals: Vec<SignalTold>,
}

impl Situations {
    /// The situations of a bundle: `unknown` and `calm`, unless its file says otherwise, and the file's own.
    ///
    /// # Errors
    /// What the file says and should not.
    pub fn of(files: &Files, snapshot: &Snapshot) -> Result<Self, Fault> {
        let path = Path::new(MATRIX_FILE);
        let file = match files.get(path) {
            None => File::default(),
            Some(bytes) => {
                let source = Source::new(path, bytes)?;
                let file = source.documents::<File>()?.into_iter().next().unwrap_or_default();
                check(&source, &file, snapshot)?;
                file
            }
        };
        let told = |(name, told): (String, Spanned<Told>)| {
            let Told { session, token, signals } = told.value;
            Situation { name, session, token, signals }
        };
        let mut list: Vec<Situation> = file.situations.into_iter().map(told).collect();
        for standard in [unknown(), calm(snapshot)] {
            if !list.iter().any(|one| one.name == standard.name) {
                list.push(standard);
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let request = file.request.into_iter().map(|(action, fields)| (action, fields.value)).collect();
        Ok(Self { list, request })
    }

    /// These, and those of the other whose names are not among them.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        for situation in other.list {
            if !self.list.iter().any(|one| one.name == situation.name) {
                self.list.push(situation);
            }
        }
        for (action, fields) in other.request {
            self.request.entry(action).or_insert(fields);
        }
        self.list.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// The situations, by name.
    #[must_use]
    pub fn list(&self) -> &[Situation] {
        &self.list
    }

    /// What the enforcement point sends with an action.
    #[must_use]
    pub fn request(&self, action: &str) -> Option<&BTreeMap<String, Value>> {
        self.request.get(action)
    }
}

fn unknown() -> Situation {
    Situation { name: "unknown".to_owned(), session: None, token: None, signals: Vec::new() }
}

/// Nothing speaks against it: a login of the best class that the bundle asks for, a moment ago; a task that covers the
/// action; a compliant device; a bound token that has been in use for an hour; no risk.
fn calm(snapshot: &Snapshot) -> Situation {
    let asked = snapshot.settings().step_up.values().find_map(|requirement| match requirement {
        Requirement::Authentication { acr_values, .. } => acr_values.first(),
        Requirement::Approval { .. } | Requirement::Attestation {} => None,
    });
    Situation {
        name: "calm".to_owned(),
        session: Some(SessionTold::calm(asked.map_or("", |acr| acr.as_str()))),
        token: Some(TokenTold::calm()),
        signals: Vec::new(),
    }
}

fn check(source: &Source<'_>, file: &File, snapshot: &Snapshot) -> Result<(), Fault> {
    if file.situations.len() > SITUATIONS_MAX {
        return Err(
            Fault::new(source.file, format!("more than {SITUATIONS_MAX} situations")).help("remove some")
        );
    }
    for (action, fields) in &file.request {
        let place = fields.referenced.into();
        let found = snapshot.actions().iter().find(|known| known.uid.id() == action);
        let Some(known) = found else {
            let fault = source.fault(place, format!("action `{action}` is not in the schema"));
            return Err(fault.help("name an action of schema.cedarschema by its id"));
        };
        super::request::fields(&fields.value, known, snapshot)
            .map_err(|what| source.fault(place, what).help("write the fields as the schema has them"))?;
    }
    for (name, told) in &file.situations {
        let place = told.referenced.into();
        let is_plain =
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if !is_plain {
            let fault = source.fault(place, format!("`{name}` is no name of a situation"));
            return Err(fault.help("use letters, digits, `-` and `_`"));
        }
        let named =
            told.value.session.as_ref().is_some_and(|one| one.id.is_some() || one.principal.is_some());
        if named {
            let fault = source.fault(place, "the session of a situation has no `id` and no `principal`");
            return Err(fault.help("remove them: it belongs to the principal of each cell"));
        }
    }
    Ok(())
}
