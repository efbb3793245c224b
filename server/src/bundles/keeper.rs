//! The one thread that decides which bundle is in force.
//!
//! INVARIANT (verified): a snapshot comes into force only from a bundle that [`Keeper::verified`] passed, or from a
//! directory where signatures are not asked for. INVARIANT (durable first): a bundle is on disk, and the floor raised,
//! before it is in force. Whatever is refused, the bundle in force goes on serving.
//! Snapshots that were replaced are freed here, once nobody reads them: freeing a large one takes milliseconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardea_policy_store::digest::Digest;
use cardea_policy_store::disk::{Disk, InForce};
use cardea_policy_store::fault::Fault;
use cardea_policy_store::load::{self, Files, Loaded};
use cardea_policy_store::manifest::Manifest;
use cardea_policy_store::pack::{self, Packed};
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::trust::{Expiry, Trust, Verified, accept_unsigned};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use smol_str::SmolStr;

use super::local::Found;
use super::{Asked, Bundles, Candidate, Command, Kept, Local, Named, Offer, Refused};
use crate::audit::record::{Body, BundleRecord};
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
    candidate: Option<Ready>,
    retired: Vec<Arc<Snapshot>>,
    /// Whether it was said that the bundle in force is stale.
    said_stale: bool,
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
            candidate: None,
            retired: Vec::new(),
            said_stale: false,
        };
        keeper.bundles.note(|history| history.floor = keeper.disk.floor());
        if let Some(in_force) = keeper.disk.in_force()
            && let Err(refused) = keeper.restore(in_force)
        {
            keeper.refuse("the last good bundle", refused);
        }
        keeper.look();
        Ok((keeper, bundles))
    }

    /// Serves requests and watches the source until the process stops.
    ///
    /// # Errors
    /// Never; a source that cannot be read for a time is a refusal like any other.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), std::convert::Infallible> {
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
                let offered = self.offer_packed(bytes);
                let _gone = reply.send(self.told("the source", offered));
            }
            Command::List(reply) => {
                let _gone = reply.send(self.list().map_err(Arc::new));
            }
            Command::Activate(named, asked, reply) => {
                let activated = self.activate(&named, &asked);
                let _gone = reply.send(self.told(&asked.by, activated));
            }
            Command::RollBack(named, asked, reply) => {
                let activated = self.roll_back(&named, &asked);
                let _gone = reply.send(self.told(&asked.by, activated));
            }
            Command::Prepare(candidate, reply) => {
                let _gone = reply.send(self.prepare(candidate).map_err(Arc::new));
            }
            Command::Promote(digest, asked, reply) => {
                let activated = self.promote(digest, &asked);
                let _gone = reply.send(self.told(&asked.by, activated));
            }
            Command::Forget => self.candidate = None,
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
        let offered = match local.read() {
            Ok(Found::Directory(files)) => {
                files.map_err(Refused::from).and_then(|files| self.offer_directory(&files))
            }
            Ok(Found::Packed(bytes)) => self.offer_packed(bytes),
            Err(error) => Err(Refused::Unreadable(from.clone(), error)),
        };
        let _told = self.told(&from, offered);
    }

    /// Notes what became of an offer.
    fn told<T>(&self, from: &str, outcome: Result<T, Refused>) -> Result<T, Arc<Refused>> {
        match outcome {
            Ok(done) => {
                self.bundles.note(|history| history.refused = None);
                Ok(done)
            }
            Err(refused) => Err(self.refuse(from, refused)),
        }
    }

    fn offer_packed(&mut self, bytes: Vec<u8>) -> Result<Offer, Refused> {
        let packed = Packed::split(bytes)?;
        let in_force = self.disk.in_force().map(|in_force| in_force.digest);
        if in_force == Some(packed.digest()) && self.serves() {
            return Ok(Offer::Unchanged);
        }
        let ready = self.ready(&packed, Expiry::Refuse)?;
        self.rises(&ready)?;
        self.disk.keep(&packed)?;
        self.install(ready, "activated", &Asked::default())?;
        Ok(Offer::Activated)
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
        self.install(ready, "activated", &Asked::default())?;
        Ok(Offer::Activated)
    }

    fn activate(&mut self, named: &Named, asked: &Asked) -> Result<u64, Refused> {
        let packed = self.find(named)?;
        let ready = self.ready(&packed, Expiry::Refuse)?;
        self.rises(&ready)?;
        self.install(ready, "activated", asked)
    }

    fn roll_back(&mut self, named: &Named, asked: &Asked) -> Result<u64, Refused> {
        let packed = self.find(named)?;
        let ready = self.ready(&packed, Expiry::Refuse)?;
        self.install(again(ready, self.disk.floor() + 1), "rolled_back", asked)
    }

    fn prepare(&mut self, candidate: Candidate) -> Result<Arc<Snapshot>, Refused> {
        let packed = match candidate {
            Candidate::Kept(named) => self.find(&named)?,
            Candidate::Packed(bytes) => Packed::split(bytes)?,
        };
        let ready = self.ready(&packed, Expiry::Refuse)?;
        self.rises(&ready)?;
        self.disk.keep(&packed)?;
        let snapshot = Arc::clone(&ready.snapshot);
        self.candidate = Some(ready);
        Ok(snapshot)
    }

    fn promote(&mut self, digest: Digest, asked: &Asked) -> Result<u64, Refused> {
        let is_it = |ready: &mut Ready| ready.digest == digest;
        let Some(ready) = self.candidate.take_if(is_it) else {
            let found =
                self.candidate.as_ref().map_or_else(|| "none".to_owned(), |other| other.digest.to_string());
            return Err(Refused::NotTheCandidate { found, wanted: digest });
        };
        // Trust and time may have changed since it became the candidate.
        let packed = self.find(&Named::Digest(digest))?;
        self.verified(&packed, Expiry::Refuse)?;
        self.rises(&ready)?;
        self.install(ready, "promoted", asked)
    }

    /// Serves again what was in force when the process ended.
    fn restore(&mut self, in_force: InForce) -> Result<(), Refused> {
        let packed = self.find(&Named::Digest(in_force.digest))?;
        let ready = self.ready(&packed, Expiry::Allow)?;
        let ready = if in_force.rollback_of.is_some() { again(ready, in_force.revision) } else { ready };
        self.put_in_force(ready, "restored", &Asked::default()).map(drop)
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
    fn install(&mut self, ready: Ready, change: &'static str, asked: &Asked) -> Result<u64, Refused> {
        let revision = ready.manifest.revision;
        if revision > self.disk.floor() {
            self.disk.commit(InForce {
                revision,
                digest: ready.digest,
                rollback_of: ready.manifest.rollback_of.filter(|_| change == "rolled_back"),
            })?;
        }
        self.put_in_force(ready, change, asked)?;
        let candidate: Vec<Digest> = self.candidate.iter().map(|ready| ready.digest).collect();
        self.disk.prune(self.keep, &candidate);
        Ok(revision)
    }

    fn put_in_force(&mut self, ready: Ready, change: &'static str, asked: &Asked) -> Result<(), Refused> {
        let now = self.pipeline.now();
        let Ready { snapshot, signed_by, content, .. } = ready;
        self.retired.extend(self.pipeline.policy().activate(Arc::clone(&snapshot))?);
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
            signed_by = ?signed_by,
            change,
            "bundle in force"
        );
        self.content = Some(content);
        self.said_stale = false;
        let floor = self.disk.floor();
        self.bundles.note(|history| {
            history.activations += 1;
            history.activated_ms = Some(now.wall_ms);
            history.signed_by = signed_by;
            history.floor = floor;
        });
        let record = record(change, &settings.name, settings.revision, snapshot.digest(), &asked.reason);
        self.pipeline.record(record, now);
        Ok(())
    }

    /// Says why something did not come into force.
    fn refuse(&self, from: &str, refused: Refused) -> Arc<Refused> {
        let now = self.pipeline.now();
        let serves_on = self.serves();
        self.pipeline.metrics().reloads.refused.increment(1);
        for fault in refused.lines() {
            tracing::error!(%fault, from, rule = refused.rule(), serves_on, "bundle refused");
        }
        let first = refused.lines().into_iter().next().unwrap_or_default();
        self.pipeline.record(record("refused", "", 0, "", &first), now);
        let refused = Arc::new(refused);
        self.bundles.note(|history| history.refused = Some((now.wall_ms, Arc::clone(&refused))));
        refused
    }

    fn list(&self) -> Result<Vec<Kept>, Refused> {
        let in_force = self.disk.in_force();
        let mut list = Vec::new();
        for digest in self.disk.kept()? {
            let Ok(packed) = self.find(&Named::Digest(digest)) else { continue };
            let Ok(unpacked) = packed.unpack() else { continue };
            let verified = self.verified(&packed, Expiry::Allow);
            list.push(Kept {
                digest,
                in_force: in_force.filter(|of| of.digest == digest).map(|of| of.revision),
                refused: verified.as_ref().err().map(ToString::to_string),
                signed_by: verified.map(|verified| verified.signed_by).unwrap_or_default(),
                manifest: unpacked.manifest,
            });
        }
        list.sort_by_key(|kept| std::cmp::Reverse(kept.in_force.unwrap_or(kept.manifest.revision)));
        Ok(list)
    }

    /// A bundle that is kept.
    fn find(&self, named: &Named) -> Result<Packed, Refused> {
        let digest = match named {
            Named::Digest(digest) => *digest,
            Named::Revision(revision) => {
                let list = self.list()?;
                let is_it = |kept: &&Kept| kept.manifest.revision == *revision;
                list.iter()
                    .find(is_it)
                    .ok_or_else(|| Refused::NotKept(format!("of revision {revision}")))?
                    .digest
            }
        };
        let bytes = self.disk.read(digest)?.ok_or_else(|| Refused::NotKept(digest.to_string()))?;
        let packed = Packed::split(bytes)?;
        if packed.digest() == digest { Ok(packed) } else { Err(Refused::NotKept(digest.to_string())) }
    }

    fn serves(&self) -> bool {
        self.pipeline.policy().snapshot().is_some()
    }

    /// What has to be done from time to time.
    fn tick(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let wall_ms = self.pipeline.now().wall_ms;
        let Some(snapshot) = self.pipeline.policy().snapshot() else { return };
        let stale = snapshot.is_stale(wall_ms);
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

fn record(change: &'static str, name: &str, revision: u64, digest: &str, reason: &str) -> Body {
    Body::Bundle(BundleRecord {
        change: SmolStr::new_static(change),
        name: name.into(),
        revision,
        digest: digest.into(),
        reason: reason.into(),
    })
}
