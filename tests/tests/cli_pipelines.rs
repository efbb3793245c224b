//! The pipelines of `examples/ci`: every `cardea` command in them is one that the program understands.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cardea_tests::process::run_cardea;

const FILES: [&str; 2] = ["github/policy.yml", "gitlab/.gitlab-ci.yml"];
/// What each of the pipelines must do.
const COMMANDS: [&str; 9] = ["build", "check", "diff", "fmt", "matrix", "push", "sign", "test", "verify"];

/// The arguments of each `cardea` command of a file, with variables as they stand.
fn commands(file: &str) -> Result<Vec<Vec<String>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/ci").join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let starts = lines.filter_map(|line| Some(line.split_once("cardea bundle ")?.1));
    Ok(starts
        .map(|rest| {
            let own = rest.split(['>', '|', '&', ';']).next().unwrap_or(rest);
            own.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect()
        })
        .collect())
}

#[test]
fn every_command_of_the_pipelines_is_understood() -> Result<()> {
    let mut faults = Vec::new();
    for file in FILES {
        for command in commands(file)? {
            let mut arguments: Vec<&std::ffi::OsStr> = vec!["bundle".as_ref()];
            // A number where the program wants one; everything else may be any text.
            let words: Vec<&str> = command
                .iter()
                .map(|word| match word.as_str() {
                    "$GITHUB_RUN_NUMBER" | "$CI_PIPELINE_IID" => "7",
                    other => other,
                })
                .collect();
            arguments.extend(words.iter().map(std::ffi::OsStr::new));
            arguments.push("--help".as_ref());
            let finished = run_cardea(&arguments, b"")?;
            if finished.code != Some(0) {
                faults.push(format!("{file}: cardea bundle {}: {}", words.join(" "), finished.stderr));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn each_pipeline_does_all_of_it() -> Result<()> {
    for file in FILES {
        let done: BTreeSet<String> =
            commands(file)?.into_iter().filter_map(|command| command.into_iter().next()).collect();
        let wanted: BTreeSet<String> = COMMANDS.iter().map(ToString::to_string).collect();
        assert_eq!(done, wanted, "{file}");
    }
    Ok(())
}
