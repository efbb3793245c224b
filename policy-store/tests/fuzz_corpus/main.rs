//! Replays the corpora of the fuzzers in `fuzz/`, which need a nightly compiler, as an ordinary test.
//!
//! Files that the fuzzers found have any name. A seed is named for what must become of it: `valid-…` or `bad-…`.

use std::path::PathBuf;

#[cfg(test)]
mod seeds;
#[path = "../../../fuzz/targets.rs"]
#[expect(unreachable_pub, reason = "the fuzzers use the same file as a library")]
mod targets;

/// The least number of files in each corpus: fewer means that it was lost.
const FILES_MIN: usize = 20;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(name)
}

#[cfg(test)]
fn replay(name: &str, accepts: fn(&[u8]) -> bool) {
    let dir = corpus(name);
    let listed =
        std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("no corpus at {}: {error}", dir.display()));
    let paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() >= FILES_MIN, "{} has {} files", dir.display(), paths.len());
    for path in paths {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        // Known before a law is broken, so that the failure says where.
        println!("{name}/{file}");
        let accepted = accepts(&std::fs::read(&path).unwrap());
        if file.starts_with("valid-") || file.starts_with("bad-") {
            assert_eq!(accepted, file.starts_with("valid-"), "{name}/{file}: whether it is accepted");
        }
    }
}

#[test]
fn no_archive_of_the_corpus_breaks_a_law() {
    replay("archive", targets::archive);
}

#[test]
fn no_manifest_of_the_corpus_breaks_a_law() {
    replay("manifest", targets::manifest);
}

#[test]
fn no_envelope_of_the_corpus_breaks_a_law() {
    replay("envelope", targets::envelope);
}

#[test]
#[ignore = "writes the seeds into `fuzz/corpus/`: only after the packed form changed"]
fn write_the_seeds() {
    for (name, seeds) in
        [("archive", seeds::archives()), ("manifest", seeds::manifests()), ("envelope", seeds::envelopes())]
    {
        std::fs::create_dir_all(corpus(name)).unwrap();
        for (file, content) in seeds {
            std::fs::write(corpus(name).join(file), content).unwrap();
        }
    }
}
