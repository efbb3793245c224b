//! The one thread that decides which bundle is in force.
//!
//! INVARIANT (verified): a snapshot comes into force only from a bundle that [`Keeper::verified`] passed, or from a
//! directory where signatures are not asked for. INVARIANT (durable first): a bundle is on disk, and the floor raised,
//! before it is in force. Whatever is refused, the bundle in force goes on serving.
//! Snapshots that were replaced are freed here, once nobody reads them: freeing a large one takes milliseconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardea_core::time::Now;
use cardea_policy_store::digest::Digest;
use cardea_policy_store::disk::{Disk, InForce};
use cardea_policy_store::fault::Fault;
use cardea_policy_store::load::{self, Files, Loaded};
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::{self, Packed};
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::stamp::Stamp;
use cardea_policy_store::trust::{Expiry, Trust, Verified, accept_unsigned};
use cardea_proto::v1::record::Entry;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use smol_str::SmolStr;

use super::later::Later;
use super::local::{Found, fingerprint};
use super::{Bundles, Command, Local, Offer, Refused};
use crate::bundle_admin::{Asked, Change, Health, Kept, Refusal, Source, SourceHealth, record};
use crate::config;
use crate::limits;
use crate::pipeline::Pipeline;
use crate::shutdown::{Phase, Shutdown};

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    /// `trust.toml`; none: signatures are not asked for.
    trust: Option<PathBuf>,
    /// How many bundles stay on disk.
    keep: usize,
    disk: Disk,
    local: Option<Local>,
    pipeline: Arc<Pipeline>,
    bundles: Arc<Bundles>,
    heard: Receiver<Command>,
    /// Content of the bundle in force, as a directory would hold it.
    content: Option<Digest>,
    retired: Vec<Arc<Snapshot>>,
    /// Whether it was said that the bundle in force is stale.
    said_stale: bool,
    /// What the source offered last, if what speaks against it may pass.
    later: Option<Later>,
}

/// A bundle that is verified, compiled and kept.
#[derive(Debug)]
struct Ready {
    manifest: Manifest,
    digest: Digest,
    content: Digest,
    signed_by: Vec<SmolStr>,
    snapshot: Arc<Snapshot>,
}

impl Keeper {
    /// Opens the store and puts in force what was in force before, verified again, and then what the source has now.
    ///
    /// # Errors
    /// When the store cannot be used. A bundle that cannot serve is no error: it is said, and everything is denied.
    pub fn open(
        config: &config::Bundle,
        pipeline: Arc<Pipeline>,
    ) -> Result<(Self, Arc<Bundles>), cardea_policy_store::disk::DiskError> {
        let disk = Disk::open(&config.store)?;
        let (bundles, heard) = Bundles::new();
        let local = match &config.source {
            config::Source::Local(path) => Some(Local::new(path.clone())),
            config::Source::Remote(_) => None,
        };
        let mut keeper = Self {
            trust: config.trust.clone(),
            keep: config.keep,
            disk,
            local,
            pipeline,
            bundles: Arc::clone(&bundles),
            heard,
            content: None,
            retired: Vec::new(),
            said_stale: false,
            later: None,
        };
        let (kind, place) = match &config.source {
            // What is missing is told by its name.
            config::Source::Local(path) => {
                let is_packed = path.extension().is_some_and(|of| of == pack::EXTENSION);
                let kind = if path.is_file() || (is_packed && !path.is_dir()) { "file" } else { "directory" };
                (kind, path.display().to_string())
            }
            config::Source::Remote(text) => {
                (if text.starts_with("oci") { "oci" } else { "https" }, text.clone())
            }
        };
        keeper.bundles.note(|health| {
            health.floor = keeper.disk.floor();
            health.source = SourceHealth { kind, place, ..SourceHealth::default() };
        });
        if let Some(in_force) = keeper.disk.in_force()
            && let Err(refused) = keeper.restore(in_force)
        {
            keeper.refuse("the last good bundle", &Asked::default(), refused);
        }
        keeper.look();
        Ok((keeper, bundles))
    }

    /// Serves requests and watches the source until the process stops.
    ///
    /// # Errors
    /// Never; a source that cannot be read for a time is a refusal like any other.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), std::convert::Infallible> {
        // This thread and those that it starts to load: with all cores busy, decisions go first and a swap takes longer.
        if let Err(error) = rustix::process::nice(limits::BUNDLE_NICE) {
            tracing::warn!(%error, "loading a bundle will compete with decisions");
        }
        let _watcher = self.local.as_ref().and_then(|local| local.notices(&self.bundles));
        while shutdown.phase() == Phase::Running {
            match self.heard.recv_timeout(limits::BUNDLE_LOOK_INTERVAL) {
                Ok(Command::Look) | Err(RecvTimeoutError::Timeout) => self.look_if_changed(),
                Ok(command) => self.serve(command),
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tick();
        }
        Ok(())
    }

    /// Does what was asked. A caller who gave up waiting needs no answer.
    fn serve(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::Offer(bytes, reply) => {
                let offered = self.offered(bytes);
                let _gone = reply.send(self.told("the source", &Asked::default(), offered));
            }
            Command::List(reply) => {
                let _gone = reply.send(self.list().map_err(Refusal::from));
            }
            Command::Load(source, reply) => {
                let ready = self.find(&source).and_then(|packed| self.ready(&packed, Expiry::Refuse));
                let _gone = reply.send(ready.map(|ready| ready.snapshot).map_err(Refusal::from));
            }
            Command::Activate(source, change, asked, reply) => {
                let activated = self.activate(&source, change, &asked);
                let _gone = reply.send(self.told("an operator", &asked, activated));
            }
            Command::RollBack(revision, asked, reply) => {
                let activated = self.roll_back(revision, &asked);
                let _gone = reply.send(self.told("an operator", &asked, activated));
            }
        }
    }

    fn look_if_changed(&mut self) {
        if let Some(local) = &self.local
            && local.has_changed()
        {
            local.settle();
            self.look();
        }
    }

    /// Takes in what the local source holds now.
    fn look(&mut self) {
        let Some(local) = &self.local else { return };
        let from = local.path().display().to_string();
        let read = local.read();
        self.later = None;
        let now_ms = self.pipeline.now().wall_ms;
        self.bundles.note(|health| match &read {
            Ok(_) => {
                health.source.contact_ms = Some(now_ms);
                health.source.error = None;
                health.source.failures = 0;
            }
            Err(error) => {
                health.source.error = Some(format!("cannot be read: {error}"));
                health.source.failures += 1;
            }
        });
        let offered = match read {
            Ok(Found::Directory(files)) => {
                files.map_err(Refused::from).and_then(|files| self.offer_directory(&files))
            }
            Ok(Found::Packed(bytes)) => self.offered(bytes),
            Err(error) => Err(Refused::Unreadable(from.clone(), error)),
        };
        let _told = self.told(&from, &Asked::default(), offered);
    }

    /// Notes what became of an offer.
    fn told<T>(&self, from: &str, asked: &Asked, outcome: Result<T, Refused>) -> Result<T, Refusal> {
        match outcome {
            Ok(done) => {
                self.bundles.note(|health| health.refused = None);
                Ok(done)
            }
            Err(refused) => Err(self.refuse(from, asked, refused)),
        }
    }

    /// Takes in what the source has, or remembers it if what speaks against it may pass.
    fn offered(&mut self, bytes: Vec<u8>) -> Result<Offer, Refused> {
        // Before it is read: a change meanwhile differs from this.
        let trust = self.trust.as_deref().map(fingerprint);
        let outcome = self.offer_packed(&bytes);
        let wall_ms = self.pipeline.now().wall_ms;
        self.later = outcome.as_ref().err().and_then(|refused| Later::after(refused, bytes, trust, wall_ms));
        outcome
    }

    /// Offers again what may be taken by now.
    fn offer_again(&mut self) {
        let (wall_ms, trust) = (self.pipeline.now().wall_ms, self.trust.as_deref());
        if let Some(later) = self.later.take_if(|later| later.is_due(wall_ms, || trust.map(fingerprint))) {
            let offered = self.offered(later.into_bytes());
            let _told = self.told("the source", &Asked::default(), offered);
        }
    }

    fn offer_packed(&mut self, bytes: &[u8]) -> Result<Offer, Refused> {
        let packed = Packed::from_bytes(bytes.to_vec())?;
        let in_force = self.disk.in_force().map(|in_force| in_force.digest);
        if in_force == Some(packed.digest()) && self.serves() {
            return self.countersigned(&packed).map(|()| Offer::Unchanged);
        }
        self.take(&packed, Change::Activated, &Asked::default()).map(|_| Offer::Activated)
    }

    /// The bundle in force may come with other signatures: those count at the next start.
    fn countersigned(&self, packed: &Packed) -> Result<(), Refused> {
        if self.disk.read(packed.digest())?.is_some_and(|kept| kept == packed.bytes()) {
            return Ok(());
        }
        let verified = self.verified(packed, Expiry::Allow)?;
        self.disk.keep(packed)?;
        self.bundles.note(|health| health.signed_by = verified.signed_by);
        Ok(())
    }

    /// A directory has no publisher who counts: if its content changed, it gets the next revision, or the higher one that it
    /// states.
    fn offer_directory(&mut self, files: &Files) -> Result<Offer, Refused> {
        if self.trust.is_some() {
            return Err(Refused::DirectoryUnsigned);
        }
        let content = load::digest(files);
        if self.content == Some(content) && self.serves() {
            return Ok(Offer::Unchanged);
        }
        let loaded = load::files(files)?;
        let settings = loaded.snapshot.settings();
        let revision = settings.revision.max(self.disk.floor() + 1);
        let packed = Packed::new(pack::manifest_for(&settings.name, revision, files), files)?;
        let manifest = pack::manifest_for(&settings.name, revision, files);
        let digest = packed.digest();
        let snapshot = compiled(loaded, &manifest, digest);
        self.disk.keep(&packed)?;
        let ready = Ready { manifest, digest, content, signed_by: Vec::new(), snapshot };
        self.install(ready, Change::Activated, &Asked::default()).map(|_| Offer::Activated)
    }

    fn activate(&mut self, source: &Source, change: Change, asked: &Asked) -> Result<Kept, Refused> {
        let packed = self.find(source)?;
        self.take(&packed, change, asked)
    }

    /// Verifies a packed bundle, keeps it, and puts it in force.
    fn take(&mut self, packed: &Packed, change: Change, asked: &Asked) -> Result<Kept, Refused> {
        let ready = self.ready(packed, Expiry::Refuse)?;
        self.rises(&ready)?;
        self.disk.keep(packed)?;
        self.install(ready, change, asked)
    }

    fn roll_back(&mut self, revision: u64, asked: &Asked) -> Result<Kept, Refused> {
        let packed = self.find(&Source::Revision(revision))?;
        let ready = self.ready(&packed, Expiry::Refuse)?;
        self.install(again(ready, self.disk.floor() + 1), Change::RolledBack, asked)
    }

    /// Serves again what was in force when the process ended.
    fn restore(&mut self, in_force: InForce) -> Result<(), Refused> {
        let packed = self.kept(in_force.digest)?;
        let ready = self.ready(&packed, Expiry::Allow)?;
        let ready = if in_force.rollback_of.is_some() { again(ready, in_force.revision) } else { ready };
        self.put_in_force(ready, Change::Restored, &Asked::default()).map(drop)
    }

    /// Verifies and compiles.
    fn ready(&self, packed: &Packed, expiry: Expiry) -> Result<Ready, Refused> {
        let verified = self.verified(packed, expiry)?;
        let loaded = load::files(&verified.files)?;
        let Verified { digest, manifest, files, signed_by, .. } = verified;
        let name = &loaded.snapshot.settings().name;
        if *name != manifest.name {
            let fault = Fault::new(
                "bundle.toml",
                format!("names the bundle `{name}`, its manifest `{}`", manifest.name),
            );
            return Err(Refused::Faults(fault.help("build it again with `cardea bundle build`").into()));
        }
        let snapshot = compiled(loaded, &manifest, digest);
        Ok(Ready { manifest, digest, content: load::digest(&files), signed_by, snapshot })
    }

    fn verified(&self, packed: &Packed, expiry: Expiry) -> Result<Verified, Refused> {
        let wall_ms = self.pipeline.now().wall_ms;
        let Some(path) = &self.trust else { return Ok(accept_unsigned(packed, wall_ms, expiry)?) };
        Ok(trust(path)?.verify(packed, wall_ms, expiry)?)
    }

    /// Holds a revision against the floor. What is in force already may come again, after a start at which it could not serve.
    fn rises(&self, ready: &Ready) -> Result<(), Refused> {
        let (offered, floor) = (ready.manifest.revision, self.disk.floor());
        let in_force = self.disk.in_force().map(|in_force| in_force.digest);
        match offered.cmp(&floor) {
            std::cmp::Ordering::Greater => Ok(()),
            std::cmp::Ordering::Equal if in_force == Some(ready.digest) => Ok(()),
            std::cmp::Ordering::Equal => Err(Refused::Reused(offered)),
            std::cmp::Ordering::Less => Err(Refused::RolledBack { offered, floor }),
        }
    }

    /// Raises the floor and swaps.
    fn install(&mut self, ready: Ready, change: Change, asked: &Asked) -> Result<Kept, Refused> {
        let revision = ready.manifest.revision;
        if revision > self.disk.floor() {
            let rollback_of = ready.manifest.rollback_of.filter(|_| change == Change::RolledBack);
            self.disk.commit(InForce { revision, digest: ready.digest, rollback_of })?;
        }
        let kept = self.put_in_force(ready, change, asked)?;
        self.disk.prune(self.keep, &[]);
        Ok(kept)
    }

    fn put_in_force(&mut self, ready: Ready, change: Change, asked: &Asked) -> Result<Kept, Refused> {
        let now = self.pipeline.now();
        let snapshot = Arc::clone(&ready.snapshot);
        let kept = Kept {
            in_force: true,
            activated_ms: Some(now.wall_ms),
            ..told_of(&ready.manifest, ready.digest, ready.signed_by)
        };
        // Told before it serves: whoever sees the revision sees who signed it, and until when it serves.
        let before = self.tell_in_force(&kept, &snapshot, now);
        self.pipeline.state().counters().install(&snapshot, now);
        // Before anything is judged by it.
        self.pipeline.audit().hide(&snapshot.declared().masks);
        match self.pipeline.policy().activate(Arc::clone(&snapshot)) {
            Ok(retired) => self.retired.extend(retired),
            Err(lower) => {
                if let Some(snapshot) = self.pipeline.policy().snapshot() {
                    self.pipeline.audit().hide(&snapshot.declared().masks);
                }
                self.bundles.note(|health| {
                    let source = std::mem::take(&mut health.source);
                    *health = Health { source, ..before };
                });
                return Err(lower.into());
            }
        }
        self.pipeline.label_actions(&snapshot);
        let metrics = self.pipeline.metrics();
        let settings = snapshot.settings();
        metrics.reloads.ok.increment(1);
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        {
            metrics.snapshot_revision.set(settings.revision as f64);
            metrics.snapshot_policies.set(snapshot.policies().len() as f64);
        }
        tracing::info!(
            bundle = %settings.name,
            revision = settings.revision,
            digest = %snapshot.digest(),
            policies = snapshot.policies().len(),
            entities = snapshot.world().len(),
            signed_by = ?kept.signed_by,
            change = change.name(),
            "bundle in force"
        );
        self.content = Some(ready.content);
        self.said_stale = false;
        let mut body = record(change, &kept, asked);
        if let (Entry::Bundle(record), Some((version, by))) = (&mut body, snapshot.approvals().version()) {
            record.baseline_version = version;
            record.baseline_approved_by = by.to_string();
        }
        self.pipeline.record(body, now);
        Ok(kept)
    }

    /// Lets Status tell what comes into force; gives what it told before.
    fn tell_in_force(&self, kept: &Kept, snapshot: &Snapshot, now: Now) -> Health {
        let floor = self.disk.floor();
        let mut before = Health::default();
        self.bundles.note(|health| {
            before = health.clone();
            health.activations += 1;
            health.activated_ms = kept.activated_ms;
            health.expires_ms = kept.expires_ms;
            health.stale = snapshot.is_stale(now.wall_ms);
            health.signed_by.clone_from(&kept.signed_by);
            health.floor = floor;
        });
        before
    }

    /// Says why something did not come into force.
    fn refuse(&self, from: &str, asked: &Asked, refused: Refused) -> Refusal {
        let now = self.pipeline.now();
        let serves_on = self.serves();
        let rule = refused.rule();
        self.pipeline.metrics().reloads.refused.increment(1);
        let refusal = Refusal::from(refused);
        let faults = match &refusal {
            Refusal::Faults(faults) => Arc::clone(faults),
            Refusal::NotFound(_) | Refusal::NotHere(_) | Refusal::Store(_) => {
                Arc::new(Fault::new("bundle", refusal.to_string()).into())
            }
        };
        for fault in faults.list() {
            tracing::error!(%fault, from, rule, serves_on, "bundle refused");
        }
        let first = faults.list().first().map(ToString::to_string).unwrap_or_default();
        let asked = Asked { reason: first.into(), by: asked.by.clone() };
        self.pipeline.record(record(Change::Refused, &Kept::default(), &asked), now);
        self.bundles.note(|health| health.refused = Some((now.wall_ms, faults)));
        refusal
    }

    /// Every bundle that is kept and could be read.
    fn list(&self) -> Result<Vec<Kept>, Refused> {
        let in_force = self.disk.in_force().filter(|_| self.serves());
        let mut list = Vec::new();
        for digest in self.disk.kept()? {
            let Ok(packed) = self.kept(digest) else { continue };
            let Ok(manifest) = packed.manifest() else { continue };
            let signed_by = self.verified(&packed, Expiry::Allow).map(|verified| verified.signed_by);
            let kept = told_of(&manifest, digest, signed_by.unwrap_or_default());
            list.push(kept.clone());
            if let Some(serves) = in_force.filter(|serves| serves.digest == digest) {
                list.pop();
                let activated_ms = self.bundles.activated_ms();
                list.push(Kept { in_force: true, activated_ms, revision: serves.revision, ..kept.clone() });
                if serves.rollback_of.is_some() {
                    list.push(kept);
                }
            }
        }
        Ok(list)
    }

    /// A bundle by what a person has at hand.
    fn find(&self, source: &Source) -> Result<Packed, Refused> {
        match source {
            Source::Packed(bytes) => Ok(Packed::from_bytes(bytes.to_vec())?),
            Source::Digest(text) => {
                self.kept(text.parse().map_err(|_| Refused::NotKept(format!("digest `{text}`")))?)
            }
            Source::Revision(revision) => {
                // A revision that this node made by going back stands in no manifest.
                let serves = self.disk.in_force().filter(|serves| serves.revision == *revision);
                if let Some(serves) = serves {
                    return self.kept(serves.digest);
                }
                for digest in self.disk.kept()? {
                    if let Ok(packed) = self.kept(digest)
                        && packed.manifest().is_ok_and(|manifest| manifest.revision == *revision)
                    {
                        return Ok(packed);
                    }
                }
                Err(Refused::NotKept(format!("revision {revision}")))
            }
        }
    }

    /// A bundle that is kept. Whatever stands under its name, only that bundle comes out.
    fn kept(&self, digest: Digest) -> Result<Packed, Refused> {
        let missing = || Refused::NotKept(format!("digest `{digest}`"));
        let packed = Packed::from_bytes(self.disk.read(digest)?.ok_or_else(missing)?)?;
        if packed.digest() == digest { Ok(packed) } else { Err(missing()) }
    }

    fn serves(&self) -> bool {
        self.pipeline.policy().snapshot().is_some()
    }

    /// What has to be done from time to time.
    fn tick(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.offer_again();
        let wall_ms = self.pipeline.now().wall_ms;
        let Some(snapshot) = self.pipeline.policy().snapshot() else { return };
        let stale = snapshot.is_stale(wall_ms);
        self.bundles.note(|health| health.stale = stale);
        self.pipeline.metrics().snapshot_stale.set(f64::from(u8::from(stale)));
        if stale && !self.said_stale {
            let revision = snapshot.settings().revision;
            tracing::error!(revision, when_stale = ?self.pipeline.when_stale(), "the bundle in force is stale: it is past its end");
        }
        self.said_stale = stale;
    }
}

/// The same content under a higher revision.
fn again(ready: Ready, revision: u64) -> Ready {
    let rollback_of = Some(ready.manifest.revision);
    let manifest = Manifest { revision, rollback_of, ..ready.manifest };
    let snapshot = Arc::try_unwrap(ready.snapshot)
        .map(|snapshot| Arc::new(snapshot.identified(&manifest, ready.digest)));
    let snapshot = snapshot.unwrap_or_else(|shared| shared);
    Ready { manifest, snapshot, ..ready }
}

fn compiled(loaded: Loaded, manifest: &Manifest, digest: Digest) -> Arc<Snapshot> {
    for warning in loaded.warnings {
        tracing::warn!(%warning, "bundle");
    }
    let snapshot = loaded.snapshot.identified(manifest, digest);
    snapshot.warm();
    Arc::new(snapshot)
}

fn trust(path: &Path) -> Result<Trust, Refused> {
    let name = path.display().to_string();
    let unreadable =
        |error: std::io::Error| Refused::Trust(Fault::new(path, format!("cannot be read: {error}")).into());
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > limits::TRUST_BYTES_MAX {
        return Err(Refused::Trust(Fault::new(path, format!("has {size} bytes")).into()));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Trust::parse(&name, &text).map_err(Refused::Trust)
}

fn told_of(manifest: &Manifest, digest: Digest, signed_by: Vec<SmolStr>) -> Kept {
    Kept {
        revision: manifest.revision,
        name: manifest.name.clone(),
        digest: digest.to_string().into(),
        created_ms: manifest.created.map(Stamp::unix_ms),
        expires_ms: manifest.expires.map(Stamp::unix_ms),
        signed_by,
        in_force: false,
        activated_ms: None,
    }
}
