//! Findings as SARIF 2.1.0: one log with one run, whose driver names every rule.
//!
//! Places are relative to the directory that the check ran in, which should be the repository's; columns count characters.

use std::path::Component;

use cardea_policy_store::fault::{Fault, Severity};
use cardea_policy_store::lint::rules;
use serde::Serialize;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
const INFORMATION: &str = "https://github.com/cardea-rs/cardea";

/// The whole file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    column_kind: &'static str,
    results: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    semantic_version: &'static str,
    information_uri: &'static str,
    rules: Vec<Descriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    id: &'static str,
    short_description: Message,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<Message>,
    default_configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: &'static str,
}

#[derive(Debug, Serialize)]
struct Message {
    text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_index: Option<usize>,
    level: &'static str,
    message: Message,
    locations: [Location; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<Region>,
}

#[derive(Debug, Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
    start_column: usize,
    end_line: usize,
    end_column: usize,
}

/// The log of these findings.
pub(super) fn log<'f>(findings: impl Iterator<Item = &'f Fault>) -> Log {
    let rules = rules::ALL.iter().map(|rule| Descriptor {
        id: rule.id,
        short_description: Message { text: rule.meaning.to_owned() },
        help: rule.help.map(|text| Message { text: text.to_owned() }),
        default_configuration: Configuration { level: level(rule.severity) },
    });
    let driver = Driver {
        name: "cardea",
        semantic_version: env!("CARGO_PKG_VERSION"),
        information_uri: INFORMATION,
        rules: rules.collect(),
    };
    let run = Run {
        tool: Tool { driver },
        column_kind: "unicodeCodePoints",
        results: findings.map(finding).collect(),
    };
    Log { schema: SCHEMA, version: "2.1.0", runs: [run] }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

fn finding(fault: &Fault) -> Finding {
    let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let region = fault.start().zip(fault.end()).map(|(start, end)| Region {
        start_line: start.line,
        start_column: start.column,
        end_line: end.line,
        end_column: end.column,
    });
    let place = PhysicalLocation { artifact_location: ArtifactLocation { uri: uri(fault) }, region };
    Finding {
        rule_id: fault.id,
        rule_index: rules::ALL.iter().position(|rule| rule.id == fault.id),
        level: level(fault.severity),
        message: Message { text: format!("{}{help}", fault.message) },
        locations: [Location { physical_location: place }],
    }
}

/// A URI reference relative to the working directory; of a path from the root, an absolute URI.
fn uri(fault: &Fault) -> String {
    let mut text = String::new();
    for part in fault.file().components() {
        match part {
            Component::RootDir => text.push_str("file:///"),
            Component::CurDir => {}
            Component::Prefix(_) | Component::ParentDir | Component::Normal(_) => {
                if !text.is_empty() && !text.ends_with('/') {
                    text.push('/');
                }
                for byte in part.as_os_str().as_encoded_bytes() {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                        text.push(char::from(*byte));
                    } else {
                        text.push_str(&format!("%{byte:02X}"));
                    }
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_log_has_what_the_2_1_0_schema_requires() {
        let placed = Fault::of(&rules::MISSING_ID, "a b/p.cedar", "m").at("permit(\n);", 0, 9);
        let whole = Fault::new("bundle.toml", "cannot be read");
        let log = serde_json::to_value(log([&placed, &whole].into_iter())).unwrap();
        assert_eq!(log["version"], "2.1.0");
        assert!(log["$schema"].as_str().unwrap().contains("sarif"));
        let [run] = log["runs"].as_array().unwrap().as_slice() else { panic!("one run") };
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let driver = &run["tool"]["driver"];
        assert_eq!(driver["name"], "cardea");
        let rules = driver["rules"].as_array().unwrap();
        for rule in rules {
            assert!(rule["id"].is_string() && rule["shortDescription"]["text"].is_string());
            assert!(
                ["error", "warning", "note"]
                    .contains(&rule["defaultConfiguration"]["level"].as_str().unwrap())
            );
            assert!(rule.get("help").is_none_or(|help| help["text"].is_string()));
        }
        let results = run["results"].as_array().unwrap();
        for result in results {
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[index]["id"], result["ruleId"]);
            assert!(!result["message"]["text"].as_str().unwrap().is_empty());
            assert!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].is_string());
        }
        let place = &results[0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b/p.cedar");
        let region = serde_json::json!({"startLine": 1, "startColumn": 1, "endLine": 2, "endColumn": 2});
        assert_eq!(place["region"], region);
        assert_eq!(results[1]["locations"][0]["physicalLocation"].get("region"), None::<&Value>);
    }

    #[test]
    fn a_path_from_the_root_is_an_absolute_uri() {
        assert_eq!(uri(&Fault::new("/tmp/ü/a.cedar", "")), "file:///tmp/%C3%BC/a.cedar");
        assert_eq!(uri(&Fault::new("../x/./a.cedar", "")), "../x/a.cedar");
    }
}
