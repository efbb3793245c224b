//! The operator's calls over real gRPC, by the Rust client and by the commands, on a node whose revisions are kept in
//! memory: shadow, promote, activate, roll back, and what is refused.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use cardea_client::v1::record::Entry;
use cardea_client::v1::{self, Decision, RevisionState, ShadowEffect, ShadowStart};
use cardea_client::{Candidate, Client, Error, attempt, entity};
use cardea_policy_store::fault::Fault;
use cardea_policy_store::load;
use cardea_policy_store::pack;
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::store::PolicyStore;
use cardea_server::audit::stored::Stored;
use cardea_server::audit::{Audit, AuditConfig, AuditStreams};
use cardea_server::bundle_admin::{Asked, Change, Health, Kept, Refusal, Revisions, Source, record};
use cardea_server::clock::Clock;
use cardea_server::config::{Listen, WhenStale};
use cardea_server::doors::{AdminDoor, NativeDoor};
use cardea_server::limits;
use cardea_server::listen::Listeners;
use cardea_server::metrics::Metrics;
use cardea_server::pipeline::{self, Pipeline};
use cardea_server::router::Router;
use cardea_server::run::{Parts, until_stopped};
use cardea_server::shutdown::Shutdown;
use cardea_server::state::{Capacity, State};
use cardea_server::supervise::Supervisor;
use cardea_server::workers::Shared;
use tempfile::TempDir;
use tonic::Code;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

const SCHEMA: &str = "
entity User; entity Doc;
action read, write appliesTo { principal: User, resource: Doc, context: { session: Cardea::Session } };
";

const READERS: &str = r#"@id("readers") permit(principal, action == Action::"read", resource);"#;
const ANYTHING: &str = r#"@id("anything") permit(principal, action, resource);"#;

/// Writes a bundle and compiles it.
fn bundle(root: &Path, revision: u64, policies: &str) -> (PathBuf, Arc<Snapshot>) {
    let dir = root.join(format!("bundle-{revision}"));
    fs::create_dir_all(dir.join("policies")).unwrap();
    fs::write(dir.join("bundle.toml"), format!("name = \"docs\"\nrevision = {revision}")).unwrap();
    fs::write(dir.join("schema.cedarschema"), SCHEMA).unwrap();
    fs::write(dir.join("policies/p.cedar"), policies).unwrap();
    let snapshot = Arc::new(load::directory(&dir).unwrap().snapshot);
    (dir, snapshot)
}

fn put_in_force(policy: &PolicyStore, dir: &Path) {
    // As the keeper does: what comes into force has a higher revision than what was.
    let files = load::read_directory(dir).unwrap();
    let snapshot = load::files(&files).unwrap().snapshot;
    let floor = policy.snapshot().map_or(0, |before| before.settings().revision);
    let revision = snapshot.settings().revision.max(floor + 1);
    let manifest = pack::manifest_for("docs", revision, &files);
    policy.activate(Arc::new(snapshot.identified(&manifest, load::digest(&files)))).unwrap();
}

/// Real snapshots in memory. A packed bundle is what its bytes stand for here; taking them apart is not the subject.
#[derive(Debug)]
struct Shelf {
    pipeline: Arc<Pipeline>,
    kept: BTreeMap<u64, (PathBuf, Arc<Snapshot>)>,
    packed: BTreeMap<Vec<u8>, u64>,
}

impl Shelf {
    fn find(&self, source: &Source) -> Result<&(PathBuf, Arc<Snapshot>), Refusal> {
        let found = match source {
            Source::Revision(revision) => self.kept.get(revision),
            Source::Digest(digest) => self.kept.values().find(|(_, snapshot)| snapshot.digest() == digest),
            Source::Packed(bytes) => match self.packed.get(&**bytes) {
                Some(revision) => self.kept.get(revision),
                None => {
                    let fault = Fault::new("manifest.json", "no key signed it").help("sign it");
                    let more = Fault::new("policies/p.cedar", "does not parse");
                    let faults = cardea_policy_store::fault::Faults::of(vec![fault, more]).unwrap();
                    return Err(Refusal::Faults(Arc::new(faults)));
                }
            },
        };
        found.ok_or_else(|| Refusal::NotFound("it".to_owned()))
    }

    fn put(&self, source: &Source, change: Change, asked: &Asked) -> Result<Kept, Refusal> {
        let (dir, _) = self.find(source)?;
        put_in_force(self.pipeline.policy(), dir);
        let kept = Kept { in_force: true, ..Kept::of(&self.pipeline.policy().snapshot().unwrap()) };
        self.pipeline.record(record(change, &kept, asked), self.pipeline.now());
        Ok(kept)
    }
}

impl Revisions for Shelf {
    fn health(&self) -> Health {
        Health { floor: 1, signed_by: vec!["release".into()], ..Health::default() }
    }

    fn list(&self) -> Result<Vec<Kept>, Refusal> {
        let current = self.pipeline.policy().snapshot().unwrap();
        let kept = |(_, snapshot): &(PathBuf, Arc<Snapshot>)| Kept {
            in_force: snapshot.digest() == current.digest(),
            ..Kept::of(snapshot)
        };
        Ok(self.kept.values().map(kept).collect())
    }

    fn load(&self, source: &Source) -> Result<Arc<Snapshot>, Refusal> {
        Ok(Arc::clone(&self.find(source)?.1))
    }

    fn activate(&self, source: &Source, change: Change, asked: &Asked) -> Result<Kept, Refusal> {
        self.put(source, change, asked)
    }

    fn roll_back(&self, to_revision: u64, asked: &Asked) -> Result<Kept, Refusal> {
        self.put(&Source::Revision(to_revision), Change::RolledBack, asked)
    }
}

/// A node with revision 1 in force, 2 and 3 kept; `three` packed is revision 3.
struct Node {
    at: SocketAddr,
    uds: PathBuf,
    pipeline: Arc<Pipeline>,
    shutdown: Shutdown,
    dir: TempDir,
    thread: thread::JoinHandle<()>,
}

fn packed_three() -> Vec<u8> {
    // More than one chunk.
    vec![3; 600 * 1024]
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let policy = Arc::new(PolicyStore::default());
        let kept: BTreeMap<_, _> = [(1, READERS), (2, "forbid(principal, action, resource);"), (3, ANYTHING)]
            .into_iter()
            .map(|(revision, policies)| (revision, bundle(dir.path(), revision, policies)))
            .collect();
        put_in_force(&policy, &kept.get(&1).unwrap().0);
        let metrics = Arc::new(Metrics::new(pipeline::labels(1)));
        let audit = Audit::open(&AuditConfig::in_dir(dir.path().join("audit")), Box::new(|| 0)).unwrap();
        let state = State::new(Capacity {
            sessions: 10,
            stored_sessions: 10,
            subjects: 10,
            revocations: 10,
            tasks: 10,
            reviews: 10,
            counters: 1000,
        });
        let pipeline = Arc::new(Pipeline::new(
            policy,
            Arc::new(state),
            Arc::new(audit),
            Arc::clone(&metrics),
            Clock::machine(),
            WhenStale::Serve,
        ));
        let packed = BTreeMap::from([(packed_three(), 3)]);
        let shelf = Arc::new(Shelf { pipeline: Arc::clone(&pipeline), kept, packed });
        let uds = dir.path().join("s");
        let listen =
            Listen { grpc: vec![SocketAddr::from(([127, 0, 0, 1], 0))], uds: Some(uds.clone()), http: None };
        let listeners = Listeners::bind(&listen).unwrap();
        let at = *listeners.addresses().first().unwrap();
        let shutdown = Shutdown::new();
        let (supervisor, mut deaths) = Supervisor::new(shutdown.clone(), metrics.panics.clone());
        let shadowed = (Arc::clone(&pipeline), shutdown.clone());
        let _ended = supervisor
            .thread("shadow".to_owned(), move || shadowed.0.shadow().run(&shadowed.0, &shadowed.1))
            .unwrap();
        let (holds, watching) = cardea_server::doors::holds(Arc::clone(&pipeline));
        let until = shutdown.clone();
        let _ended = supervisor.thread("holds".to_owned(), move || watching.run(&until)).unwrap();
        let admin = AdminDoor::new(holds.clone(), shelf);
        let streams = Arc::new(AuditStreams::new(Arc::clone(pipeline.audit()), shutdown.clone()));
        let make = move |_worker| {
            let native = NativeDoor::new(holds.clone());
            let admin = v1::admin_service_server::AdminServiceServer::new(admin.clone());
            Router::builder()
                .service(v1::decision_service_server::DecisionServiceServer::new(native))
                .service(v1::audit_service_server::AuditServiceServer::from_arc(Arc::clone(&streams)))
                .service(admin.max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX))
                .build()
        };
        let shared = Shared { tls: None, metrics, supervisor };
        let parts = Parts { listeners, threads: 1, connections_max: 100, make, shared };
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(until_stopped(parts, &mut deaths)).unwrap();
        });
        Self { at, uds, pipeline, shutdown, dir, thread }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    async fn client(&self) -> Client {
        Client::connect(self.url()).await.unwrap()
    }

    fn digest(&self, revision: u64) -> String {
        let dir = self.dir.path().join(format!("bundle-{revision}"));
        load::directory(&dir).unwrap().snapshot.digest().to_string()
    }

    /// Waits until the shadow has evaluated so many attempts.
    async fn evaluated(&self, client: &mut Client, count: u64) -> v1::Shadow {
        let look = async {
            loop {
                let shadow = client.shadow().await.unwrap().unwrap();
                if shadow.evaluated >= count {
                    return shadow;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap()
    }

    /// Every record of bundles and shadows so far.
    async fn records(self) -> Vec<Entry> {
        self.shutdown.drain();
        // Aside: the clients' connections live on this runtime, and end with the node's.
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
        self.pipeline.audit().close().unwrap();
        let stored = Stored::open(&[self.dir.path().join("audit")]);
        // Nothing may have been recorded at all.
        let entries = stored.into_iter().flatten().filter_map(|record| record.unwrap().entry);
        entries.filter(|entry| matches!(entry, Entry::Bundle(_) | Entry::Shadow(_))).collect()
    }
}

/// `change name revision by reason` of each record of a bundle.
fn changes(records: &[Entry]) -> Vec<String> {
    let told = |body: &Entry| match body {
        Entry::Bundle(bundle) => {
            Some(format!("{} {} {} {}", bundle.change, bundle.name, bundle.revision, bundle.reason))
        }
        Entry::Decision(_)
        | Entry::Signal(_)
        | Entry::Session(_)
        | Entry::Gap(_)
        | Entry::Shadow(_)
        | Entry::Task(_)
        | Entry::Review(_)
        | Entry::Stream(_)
        | Entry::Withheld(_)
        | Entry::Retention(_) => None,
    };
    records.iter().filter_map(told).collect()
}

fn every(reason: &str) -> ShadowStart {
    ShadowStart { sample_per_10000: 10_000, reason: reason.to_owned(), ..ShadowStart::default() }
}

fn writes() -> v1::Attempt {
    attempt(entity("User", "u"), "write", entity("Doc", "d"))
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result {
        Err(Error::Call(status)) => (status.code(), status.message().to_owned()),
        other => panic!("the node did not refuse: {other:?}"),
    }
}

#[tokio::test]
async fn a_candidate_is_sent_compared_watched_and_promoted() {
    let node = Node::start();
    let mut client = node.client().await;
    let filter = v1::RecordFilter { kinds: vec![v1::RecordKind::Shadow.into()], ..Default::default() };
    let mut differences = client.audit_from(0, Some(filter)).await.unwrap();
    let candidate = Candidate::Packed(packed_three().into());
    let shadow = client.start_shadow(candidate, every("is 3 safe?")).await.unwrap();
    assert_eq!((shadow.revision, shadow.evaluated, shadow.digest.as_str()), (3, 0, &*node.digest(3)));

    let told = client.decide(writes()).await.unwrap();
    assert_eq!(told.decision(), Decision::Deny, "the caller gets the answer in force");
    let read = attempt(entity("User", "u"), "read", entity("Doc", "d"));
    client.decide(read).await.unwrap();
    let shadow = node.evaluated(&mut client, 2).await;
    assert_eq!((shadow.same, shadow.skipped, shadow.recorded), (1, 0, 1));
    let [group] = &shadow.groups[..] else { panic!("{shadow:?}") };
    assert_eq!((group.effect(), group.count), (ShadowEffect::Widened, 1));
    assert_eq!((group.in_force(), group.candidate()), (Decision::Deny, Decision::Allow));
    assert_eq!(group.candidate_policies, ["anything"]);
    assert_eq!(group.example_decision_id, told.decision_id);

    let streamed = tokio::time::timeout(PATIENCE, differences.receive()).await.unwrap().unwrap().unwrap();
    let Some(Entry::Shadow(difference)) = &streamed[0].entry else { panic!("{streamed:?}") };
    assert_eq!(difference.decision_id, told.decision_id);
    assert_eq!(difference.effect(), ShadowEffect::Widened);
    let revision = |answer: &Option<v1::ShadowAnswer>| answer.as_ref().unwrap().revision;
    assert_eq!((revision(&difference.in_force), revision(&difference.candidate)), (1, 3));

    let (aborted, message) = code(client.promote(node.digest(2), "").await);
    assert_eq!(aborted, Code::Aborted);
    assert!(message.contains(&node.digest(3)), "{message}");
    let promoted = client.promote(node.digest(3), "it is").await.unwrap();
    assert_eq!(promoted.revision.unwrap().revision, 3);
    assert_eq!(promoted.shadow.unwrap().evaluated, 2);
    assert!(client.shadow().await.unwrap().is_none());
    assert_eq!(client.decide(writes()).await.unwrap().decision(), Decision::Allow);

    drop(differences);
    let records = node.records().await;
    assert_eq!(changes(&records), ["shadow_started docs 3 is 3 safe?", "promoted docs 3 it is"]);
    assert_eq!(records.iter().filter(|body| matches!(body, Entry::Shadow(_))).count(), 1);
}

#[tokio::test]
async fn revisions_are_listed_activated_and_gone_back_to_with_who_asked_and_why() {
    let node = Node::start();
    let mut client = Client::connect(format!("unix:{}", node.uds.display())).await.unwrap();
    client.start_shadow(Candidate::Revision(2), every("")).await.unwrap();
    let states: Vec<_> =
        client.revisions().await.unwrap().iter().map(|one| (one.revision, one.state())).collect();
    let expected = [(3, RevisionState::Stored), (2, RevisionState::Shadow), (1, RevisionState::InForce)];
    assert_eq!(states, expected);
    assert_eq!(client.activate(2, "try").await.unwrap().revision, 2);
    assert_eq!(client.activate_digest(node.digest(3), "").await.unwrap().revision, 3);
    let back = client.roll_back(1, "refunds were denied").await.unwrap();
    assert_eq!(back.revision, 4, "a change back is a new, higher revision");
    let status = client.status().await.unwrap().bundle.unwrap();
    assert_eq!((status.revision, status.floor_revision, status.signed_by.len()), (4, 1, 1));
    client.stop_shadow("enough").await.unwrap();
    let records = node.records().await;
    assert_eq!(
        changes(&records),
        [
            "shadow_started docs 2 ",
            "activated docs 2 try",
            "activated docs 3 ",
            "rolled_back docs 4 refunds were denied",
            "shadow_stopped docs 2 enough",
        ]
    );
    for record in &records {
        let Entry::Bundle(bundle) = record else { continue };
        assert!(bundle.asked_by.starts_with("uid:"), "{bundle:?}");
    }
}

#[tokio::test]
async fn every_refusal_has_its_own_code_and_says_what_to_do() {
    let node = Node::start();
    let mut client = node.client().await;
    let start = || every("");
    assert_eq!(code(client.stop_shadow("").await).0, Code::NotFound);
    assert_eq!(code(client.promote(node.digest(3), "").await).0, Code::NotFound);
    assert_eq!(code(client.promote("abc", "").await).0, Code::InvalidArgument);
    assert_eq!(code(client.activate(99, "").await).0, Code::NotFound);
    assert_eq!(code(client.roll_back(99, "").await).0, Code::NotFound);
    assert_eq!(code(client.activate(2, "x".repeat(1025)).await).0, Code::InvalidArgument);
    assert_eq!(code(client.start_shadow(Candidate::Revision(99), start()).await).0, Code::NotFound);
    let never = ShadowStart { sample_per_10000: 0, ..start() };
    assert_eq!(code(client.start_shadow(Candidate::Revision(3), never).await).0, Code::InvalidArgument);
    let nothing = Candidate::Packed(Vec::new().into());
    assert_eq!(code(client.start_shadow(nothing, start()).await).0, Code::InvalidArgument);
    let unknown = Candidate::Packed(vec![9; 10].into());
    let (refused, message) = code(client.start_shadow(unknown, start()).await);
    assert_eq!(refused, Code::FailedPrecondition);
    assert_eq!(
        message,
        "the bundle is refused:\nmanifest.json: no key signed it (sign it)\npolicies/p.cedar: does not parse"
    );
    assert!(client.shadow().await.unwrap().is_none(), "what was refused is not on");
    client.start_shadow(Candidate::Revision(3), start()).await.unwrap();
    assert_eq!(code(client.start_shadow(Candidate::Revision(2), start()).await).0, Code::AlreadyExists);
    let replacing = ShadowStart { replace: true, ..start() };
    let shadow = client.start_shadow(Candidate::Revision(2), replacing).await.unwrap();
    assert_eq!(shadow.revision, 2);
    assert_eq!(
        changes(&node.records().await),
        ["shadow_started docs 3 ", "shadow_stopped docs 3 ", "shadow_started docs 2 "]
    );
}

/// Sends parts as they are, where the client would not.
async fn parts(node: &Node, parts: Vec<v1::start_shadow_request::Part>) -> Code {
    let channel = tonic::transport::Endpoint::from_shared(node.url()).unwrap().connect().await.unwrap();
    let messages = parts.into_iter().map(|part| v1::StartShadowRequest { part: Some(part) });
    let messages: Vec<_> = messages.collect();
    let mut admin = v1::admin_service_client::AdminServiceClient::new(channel);
    admin.start_shadow(futures_util::stream::iter(messages)).await.unwrap_err().code()
}

#[tokio::test]
async fn an_upload_that_is_not_what_it_announced_is_refused() {
    use v1::shadow_start::Candidate::{PackedBytes, Revision};
    use v1::start_shadow_request::Part::{Chunk, Start};
    let node = Node::start();
    let start = |candidate| Start(ShadowStart { candidate: Some(candidate), ..every("") });
    let chunk = |bytes: usize| Chunk(vec![3; bytes]);
    for bad in [
        vec![],
        vec![chunk(1)],
        vec![Start(every(""))],
        vec![start(PackedBytes(5)), chunk(4)],
        vec![start(PackedBytes(5)), chunk(6)],
        vec![start(PackedBytes(5)), chunk(0)],
        vec![start(PackedBytes(5)), chunk(5), chunk(1)],
        vec![start(PackedBytes(5)), start(PackedBytes(5))],
        vec![start(Revision(3)), chunk(1)],
        vec![start(PackedBytes((64 << 20) + 1)), chunk(1)],
        vec![start(PackedBytes(1 << 20)), chunk(limits::CANDIDATE_CHUNK_BYTES_MAX + 1)],
    ] {
        let shown = format!("{:?}", bad.len());
        assert_eq!(parts(&node, bad).await, Code::InvalidArgument, "{shown} parts");
    }
    assert!(node.pipeline.shadow().current().is_none());
    node.records().await;
}

/// Runs the program to its end.
async fn cardea(args: Vec<String>) -> Output {
    let run = move || Command::new(env!("CARGO_BIN_EXE_cardea")).args(args).output().unwrap();
    tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(run)).await.unwrap().unwrap()
}

async fn bundle_command(node: &Node, command: &str, rest: &[&str]) -> (Option<i32>, String, String) {
    let mut args = vec!["bundle".to_owned()];
    args.extend(command.split(' ').map(str::to_owned));
    args.extend(["--node".to_owned(), node.url()]);
    args.extend(rest.iter().map(|arg| (*arg).to_owned()));
    let output = cardea(args).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_commands_tell_what_the_node_says() {
    let node = Node::start();
    let file = node.dir.path().join("docs-3.cardea");
    fs::write(&file, packed_three()).unwrap();
    let file = file.to_str().unwrap();

    let (code, _, error) = bundle_command(&node, "shadow stop", &[]).await;
    assert_eq!(code, Some(1));
    assert!(error.contains("no shadow is on"), "{error}");
    assert_eq!(bundle_command(&node, "shadow status", &[]).await.0, Some(1));
    let (code, out, error) = bundle_command(&node, "shadow start", &[file, "--sample", "1"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with("shadow: docs revision 3, 100 % of the attempts"), "{out}");

    let mut client = node.client().await;
    client.decide(writes()).await.unwrap();
    node.evaluated(&mut client, 1).await;
    let (code, out, _) = bundle_command(&node, "shadow status", &["--fail-on", "widening"]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("deny -> allow") && out.contains("anything"), "{out}");
    let (code, out, _) = bundle_command(&node, "shadow status", &["--format", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["shadow"]["changes"][0]["effect"].as_str()), (Some(0), Some("widened")));

    let (code, out, _) = bundle_command(&node, "list", &[]).await;
    assert_eq!(code, Some(0));
    let lines: Vec<_> = out.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>()).collect();
    assert_eq!(lines[..2], [vec!["REVISION", "STATE"], vec!["3", "shadow"]], "{out}");

    let (code, out, _) = bundle_command(&node, "promote", &[&node.digest(2), "--format", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["refused"].as_bool()), (Some(1), Some(true)), "{out}");
    let (code, out, error) = bundle_command(&node, "promote", &[&node.digest(3)]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("docs revision 3 is in force"), "{out}");
    let (code, out, error) = bundle_command(&node, "rollback", &["--to", "1", "--reason", "too open"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("docs revision 4 is in force"), "{out}");
    assert_eq!(bundle_command(&node, "activate", &["99"]).await.0, Some(1));
    assert_eq!(bundle_command(&node, "activate", &["next"]).await.0, Some(2));
    node.records().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_no_finding() {
    let args = ["bundle", "list", "--node", "http://127.0.0.1:1"].map(str::to_owned);
    let output = cardea(args.to_vec()).await;
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("cannot connect") && error.contains("help:"), "{error}");
}

#[tokio::test]
async fn a_watch_prints_differences_as_they_come() {
    let node = Node::start();
    let url = node.url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardea"));
    command.args([
        "bundle",
        "shadow",
        "start",
        "--revision",
        "3",
        "--watch",
        "--format",
        "json",
        "--node",
        &url,
    ]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut client = node.client().await;
    let on = async {
        while client.shadow().await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, on).await.unwrap();
    client.decide(writes()).await.unwrap();
    let stdout = child.stdout.take().unwrap();
    let first = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        line
    });
    let line = tokio::time::timeout(PATIENCE, first).await.unwrap().unwrap();
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["effect"].as_str(), Some("widened"), "{line}");
    assert_eq!(json["candidate"]["determining_policies"][0].as_str(), Some("anything"), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    node.records().await;
}
