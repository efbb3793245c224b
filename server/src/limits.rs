//! Every named maximum and timeout of the server, each with a sentence that says where the number comes from.
//!
//! A queue, map, body, loop or wait anywhere in this crate takes its bound from here or from the
//! configuration, whose own bounds are here too. Units are in the names; waits are `Duration`s.

use std::ops::RangeInclusive;
use std::time::Duration;

// --- gRPC messages -------------------------------------------------------------------------------------

/// Largest gRPC message taken in, in bytes. A `CheckRequest` with a buffered 64 KiB body and a batch of 1024
/// attempts of 600 bytes both fit with room; tonic's own default of 4 MiB would let one call hold four times that.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Attempts in one batch. At 1 µs each a full batch holds its worker for about 1 ms, the p99 budget of a push.
pub const BATCH_ATTEMPTS_MAX: usize = 1024;

// --- HTTP/2 --------------------------------------------------------------------------------------------

/// Streams that one connection may have open at a time. Envoy and our client multiplex at most some hundreds
/// per connection; RFC 9113 advises at least 100.
pub const HTTP2_STREAMS_MAX: u32 = 1024;

/// Header list of one request, in bytes, counted as RFC 9113 6.5.2 counts it. The headers of the request being
/// judged travel in the message, so ours hold gRPC's own and one bearer token (4 to 8 KiB in practice).
pub const HTTP2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Flow-control window of one stream, in bytes: one largest message without waiting for an update.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Flow-control window of one connection, in bytes: what a peer may make us hold unread; two largest messages.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Bytes that wait in one stream for a peer that reads slowly; then the writer waits. hyper's default.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 400 * 1024;

/// Streams opened and reset before we took them up, until the connection is closed. h2's answer to rapid reset
/// (CVE-2023-44487).
pub const HTTP2_PENDING_RESETS_MAX: usize = 20;

/// Streams that we had to reset for the peer's errors, until the connection is closed. hyper's default.
pub const HTTP2_LOCAL_RESETS_MAX: usize = 1024;

/// Silence after which we ping: half of the 60 s after which common load balancers drop idle connections.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// Wait for the answer to a ping, until the connection counts as dead; ten round trips of a bad mobile link.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

// --- connections ---------------------------------------------------------------------------------------

/// gRPC connections open at a time, over all listeners. Enforcement points hold a few each; 10,000 leaves a
/// margin below the usual limit of 16,384 open files that a service is given with systemd or containers.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Wait for the TLS handshake and the HTTP/2 preface together. A healthy handshake takes milliseconds; 5 s
/// outlives two lost packets and their retransmission.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepted sockets that wait for one worker. A worker takes them in microseconds; a longer line means that
/// it is stuck, and then the next worker gets the socket.
pub const WORKER_QUEUE_MAX: usize = 64;

/// Rest after a failed accept (most often: no file descriptor left), so that the acceptor does not spin.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// gRPC listeners in the configuration: IPv4 and IPv6 on a handful of networks.
pub const LISTENERS_MAX: usize = 16;

/// Longest path of a Unix socket, in bytes: `sun_path` holds 108 with its closing zero (unix(7)).
pub const UDS_PATH_BYTES_MAX: usize = 107;

/// Permission bits of the Unix socket: owner and group may connect, others not.
pub const UDS_MODE: u32 = 0o660;

// --- TLS -----------------------------------------------------------------------------------------------

/// How often the certificate files are looked at. Rotation runs hours ahead of expiry; 2 s costs nothing.
pub const TLS_POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long the files must stay the same before they are read, so that a half-written pair is not tried.
pub const TLS_SETTLE: Duration = Duration::from_millis(200);

/// Rounds of settling, until files that change without end are read as they are (10 s).
pub const TLS_SETTLE_ROUNDS_MAX: u32 = 50;

/// Largest certificate, key or CA file, in bytes. The whole Mozilla root store as PEM is about 230 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Names of one kind (URI, DNS) kept from a client certificate. SPIFFE allows exactly one URI.
pub const PEER_NAMES_MAX: usize = 16;

/// Longest name kept from a client certificate, in bytes: the limit of a SPIFFE id.
pub const PEER_NAME_BYTES_MAX: usize = 2048;

// --- the metrics and health port -----------------------------------------------------------------------

/// Connections to the metrics port at a time: a few scrapers and probes.
pub const HTTP_CONNECTIONS_MAX: usize = 64;

/// Wait for the head of a request on the metrics port, also between two requests of one connection.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Life of one connection to the metrics port; a scraper that needs longer for one answer is gone.
pub const HTTP_CONNECTION_LIFE: Duration = Duration::from_secs(300);

/// Buffer for the head of a request on the metrics port, in bytes; hyper's smallest, answers 431 beyond it.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;

/// Largest body that a request to the metrics port may announce, in bytes. None of its requests has one.
pub const HTTP_BODY_BYTES_MAX: u64 = 4 * 1024;

// --- metrics -------------------------------------------------------------------------------------------

/// Action names that get a label of their own, the first included (`other`). More actions than this are counted
/// together under `other`, so that a bundle cannot multiply the series without end.
pub const ACTION_LABELS_MAX: usize = 128;

/// Longest action label, in bytes; longer names are counted under `other`.
pub const ACTION_LABEL_BYTES_MAX: usize = 128;

/// Copies of the decision counters, so that workers do not share cache lines; workers beyond it share.
pub const METRIC_SHARDS_MAX: usize = 16;

// --- start and stop ------------------------------------------------------------------------------------

/// Time for calls in flight after SIGTERM. Kubernetes kills after 30 s; this leaves 10 s for the audit to close.
pub const DRAIN_GRACE: Duration = Duration::from_secs(20);

/// Wait for the workers after they were told to abort; one that is still busy then is left behind.
pub const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Worker threads. One per core is right; 256 covers the largest machines on offer and catches typing errors.
pub const WORKERS_MAX: usize = 256;

/// Reports of dead essential tasks that wait to be read. The first one already ends the process.
pub const FATAL_QUEUE: usize = 16;

// --- bounds of configured numbers ----------------------------------------------------------------------

/// Largest configuration file, in bytes; the commented reference file is below 8 KiB.
pub const CONFIG_BYTES_MAX: u64 = 256 * 1024;

/// `audit.queue_max`, in records of about 1 KiB: from a queue that blocks at once to about 16 GiB.
pub const AUDIT_QUEUE_RANGE: RangeInclusive<u64> = 1..=16_777_216;

/// `audit.segment_mb`: from a file for tests to one that tools still open.
pub const AUDIT_SEGMENT_MB_RANGE: RangeInclusive<u64> = 1..=4096;

/// `audit.keep_mb`: nothing, or up to a petabyte.
pub const AUDIT_KEEP_MB_RANGE: RangeInclusive<u64> = 0..=1 << 30;

/// `audit.keep_days`: nothing, or up to a century.
pub const AUDIT_KEEP_DAYS_RANGE: RangeInclusive<u64> = 0..=36_525;

/// How long an answer waits at most until its record is on the disk.
pub const AUDIT_DURABLE_WAIT: Duration = Duration::from_secs(2);

/// How often the audit is made to survive a crash of the machine, in milliseconds.
pub const AUDIT_SYNC_MS_RANGE: RangeInclusive<u64> = 1..=1_000;

/// Sinks of the audit; each has a thread.
pub const SINKS_MAX: usize = 16;

/// Longest name of a sink, in bytes: with `sink-` before it, a name of a thread.
pub const SINK_NAME_BYTES_MAX: usize = 32;

/// Wait for a sink's answer to a batch.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait for a connection with TLS to a sink.
pub const SINK_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait between two tries: a minute after a sink is back it gets what it missed.
pub const SINK_BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a sink waits for more once it has sent less than a full batch: twenty small batches a second at most.
pub const SINK_LINGER: Duration = Duration::from_millis(50);

/// How often a record is refused alone before it goes to the dead letters.
pub const SINK_REFUSALS_MAX: u32 = 3;

/// Bytes of dead letters of a sink, about 50,000 records; beyond them the sink waits for somebody to look into them.
pub const SINK_DEAD_BYTES_MAX: u64 = 64 << 20;

/// Longest secret in a file of a sink, in bytes; a long token of a cloud has two thousand.
pub const SINK_SECRET_BYTES_MAX: usize = 16_384;

/// Largest answer of a collector that is read, in bytes.
pub const SINK_ANSWER_BYTES_MAX: usize = 65_536;

/// MiB of a file after which the next one begins.
pub const SINK_ROTATE_MB_RANGE: RangeInclusive<u64> = 1..=65_536;

/// Older files of a sink that stay; 0 keeps all.
pub const SINK_KEEP_RANGE: RangeInclusive<u64> = 0..=100_000;

/// How long a stopping process lets sinks take the last records.
pub const SINK_FINISH: Duration = Duration::from_secs(2);

/// How long it then waits for a sink that was told to give up.
pub const SINK_GIVE_UP: Duration = Duration::from_secs(1);

/// `state.*_max`, in entries of at most 512 bytes: up to about 50 GiB.
pub const STATE_ENTRIES_RANGE: RangeInclusive<u64> = 1..=100_000_000;

// --- bundles -------------------------------------------------------------------------------------------

/// How often a bundle's directory is looked at, for changes of which no notice came.
pub const BUNDLE_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Quiet time before a changed bundle is read: an editor's write, rename and touch come within a few milliseconds of each
/// other, files of a copy within a hundred or so.
pub const BUNDLE_SETTLE: Duration = Duration::from_millis(200);

/// When a bundle that the store could not keep is tried again: a full disk is not emptied within seconds.
pub const BUNDLE_STORE_RETRY: Duration = Duration::from_secs(30);

/// Rounds of waiting for quiet; a directory that never rests is read all the same, after ten seconds.
pub const BUNDLE_SETTLE_ROUNDS_MAX: usize = 50;

/// By how much the threads that load bundles stand back (nice(2)): all the way, a fiftieth of a busy core is left to them.
pub const BUNDLE_NICE: i32 = 19;

/// Requests that wait for the thread that keeps bundles; each takes up to some seconds, and operators are few.
pub const BUNDLE_COMMANDS: usize = 16;

/// Largest `trust.toml`, in bytes; with the most keys it has about 12 KiB.
pub const TRUST_BYTES_MAX: u64 = 256 * 1024;

/// `bundle.keep`: one to go back to, up to what a directory still lists at once.
pub const BUNDLE_KEEP_RANGE: RangeInclusive<u64> = 2..=1000;
/// Attempts that wait for the shadow's thread, about 1 KiB each: at 100,000 attempts a second it bridges 80 ms in which
/// the thread gets no core.
pub const SHADOW_SAMPLES_MAX: usize = 8192;

/// Least rest of the shadow's thread between two rounds. Waking it for each attempt would cost the deciding thread tens of
/// microseconds; 200 wake-ups a second while a shadow is on are cheap.
pub const SHADOW_INTERVAL: Duration = Duration::from_millis(5);

/// Rest of the shadow's thread while no shadow is on; a start wakes it, the end of the process need not wait longer.
pub const SHADOW_IDLE: Duration = Duration::from_millis(200);

/// Packed candidate that comes in over the wire, in bytes: the largest packed bundle that a source may give.
pub const CANDIDATE_BYTES_MAX: u64 = 64 << 20;

/// Chunk of a packed candidate, in bytes: half of the largest message.
pub const CANDIDATE_CHUNK_BYTES_MAX: usize = 512 * 1024;

/// Wait for a whole packed candidate: 64 MiB in this time are 5 Mbit/s.
pub const CANDIDATE_UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Reason that an operator gives for a change, in bytes: some sentences.
pub const REASON_BYTES_MAX: usize = 1024;

/// Message of a refusal, in bytes. It travels in a trailer, three bytes for a line end; clients commonly take 16 KiB of
/// these.
pub const REFUSAL_BYTES_MAX: usize = 4096;

/// Groups of differences in one status of the shadow: what people look through.
pub const SHADOW_GROUPS_SHOWN: usize = 100;

/// How often health is brought in line with whether a bundle is in force.
pub const HEALTH_INTERVAL: Duration = Duration::from_millis(200);

// --- tasks and reviews ---------------------------------------------------------------------------------

/// Reviews of one principal at a time, those that were over within the hour included: more than its reviewers would look
/// at in a day, and far fewer than would crowd out everybody else's.
pub const REVIEWS_OF_ONE_MAX: usize = 256;

/// Step-ups that wait for their review to be opened. Each takes some microseconds; what finds no place is counted, and its
/// retry opens the review.
pub const REVIEWS_WAITING_MAX: usize = 4096;

/// How often reviews are looked at for those that have expired; they wait for a day.
pub const REVIEWS_LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait of a decision for the disk, when it uses up a grant that opens one attempt only; longer, and it opens nothing.
pub const GRANT_DURABLE_MAX: Duration = Duration::from_secs(2);

/// Rest of the thread that opens reviews: a step-up wakes it, the end of the process need not wait longer.
pub const REVIEWS_IDLE: Duration = Duration::from_millis(200);

// --- bundles from the network --------------------------------------------------------------------------

/// Longest address of a bundle, in bytes; what common servers and proxies take as a request target is 8 KiB.
pub const LOCATION_BYTES_MAX: usize = 2048;

/// Largest manifest of an artifact, in bytes. Ours is below 2 KiB; registries may add annotations when they copy.
pub const REMOTE_MANIFEST_BYTES_MAX: u64 = 64 * 1024;

/// Largest answer that is neither bundle nor manifest, in bytes: a token, or an error in words.
pub const REMOTE_ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Longest ETag that is kept, in bytes. Servers send 20 to 70; a longer one counts as none.
pub const ETAG_BYTES_MAX: usize = 256;

/// Longest text from a server that is repeated in an error, in characters.
pub const REMOTE_MESSAGE_CHARS_MAX: usize = 200;

/// Largest file with a token or password, in bytes. A JSON web token with many groups is 8 KiB.
pub const SECRET_FILE_BYTES_MAX: u64 = 16 * 1024;

/// Redirects followed for one request. A renamed file needs one, a registry that stores its blobs elsewhere two.
pub const REMOTE_REDIRECTS_MAX: usize = 3;

/// Wait for a connection with TLS: DNS, TCP and handshake with three lost packets.
pub const REMOTE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait for the head of an answer, on top of what a long poll asked for.
pub const REMOTE_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest silence within a body.
pub const REMOTE_STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for one whole body, unless configured: the largest bundle at 2 Mbit/s.
pub const REMOTE_FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// Between two looks at a source, unless configured: a change is in force within a minute, and a registry that
/// allows 100 requests in six hours and address is the one to raise it for.
pub const REMOTE_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Bounds of the interval, in seconds: from tests to once a day.
pub const REMOTE_POLL_INTERVAL_RANGE: RangeInclusive<u64> = 1..=86_400;

/// What a long poll asks the server to wait at most, in seconds. Common proxies end silent connections after 60 s.
pub const REMOTE_WAIT_RANGE: RangeInclusive<u64> = 1..=300;

/// Rest between two long polls, so that a server that answers at once is asked once a second at most.
pub const REMOTE_LONG_POLL_REST: Duration = Duration::from_secs(1);

/// Shortest wait after a failure.
pub const REMOTE_BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait after the first failure; it doubles with each further one.
pub const REMOTE_BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after any failure: five minutes after a source is back, every node has asked it.
pub const REMOTE_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Longest `Retry-After` that is obeyed; a server cannot switch updates off for longer.
pub const REMOTE_RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

// --- shared signals out --------------------------------------------------------------------------------

/// Conclusions that wait to be turned into events. A principal with 10,000 sessions that ends at once fits, with room.
pub const SSF_CONCLUSIONS_MAX: usize = 16_384;

/// Conclusions that become durable together: one wait for the disk for as many as come in during the last one.
pub const SSF_CONCLUSIONS_AT_ONCE: usize = 256;

/// Receivers in the configuration, each a partner that somebody made an agreement with.
pub const SSF_STREAM_OWNERS_MAX: usize = 64;

/// Streams of one receiver: one for production and one for each of a few test installations.
pub const SSF_STREAMS_PER_RECEIVER_MAX: usize = 8;

/// Subjects that one stream leaves out. At the size of most subjects (200 bytes) they take 2 MB of memory.
pub const SSF_SUBJECTS_MAX: usize = 10_000;

/// Largest subject, in bytes of JSON. Three members of 255 characters each take 1 KiB.
pub const SSF_SUBJECT_BYTES_MAX: usize = 4096;

/// Largest request to the transmitter, in bytes. The largest honest one acknowledges some hundred events of a poll.
pub const SSF_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Event types that a stream may ask for; CAEP and RISC together have 22.
pub const SSF_EVENTS_REQUESTED_MAX: usize = 64;

/// Longest text of a stream (description, reason, state of a verification, event type), in bytes: some sentences.
pub const SSF_TEXT_BYTES_MAX: usize = 1024;

/// Longest `Authorization` header that a receiver may ask to get, in bytes; as large as tokens are in practice.
pub const SSF_AUTHORIZATION_BYTES_MAX: usize = 8 * 1024;

/// `ssf.transmitter.outbox_max`, in events of one stream that wait, about 1 KiB each.
pub const SSF_OUTBOX_RANGE: RangeInclusive<u64> = 8..=1_000_000;

/// Bytes of the events of one stream that wait, whatever their number.
pub const SSF_OUTBOX_BYTES_MAX: usize = 64 << 20;

/// Life of an event that nobody takes. A session that ended a week ago is past its own end at every receiver.
pub const SSF_EVENT_AGE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Events in one answer to a poll: at 2 KiB each 128 KiB, signed in about 60 ms.
pub const SSF_POLL_EVENTS_MAX: usize = 64;

/// How long a poll is held until an event comes. Common proxies end silent connections after 60 s.
pub const SSF_POLL_HOLD: Duration = Duration::from_secs(30);

/// Polls of one stream that wait at a time: the one that is meant and those whose callers gave up unnoticed.
pub const SSF_POLL_WAITERS_MAX: usize = 4;

/// Wait for the head of a receiver's answer to a pushed event. Receivers store the event first; a slow disk takes a second.
pub const SSF_PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait for a connection with TLS to a receiver: DNS, TCP and handshake with two lost packets.
pub const SSF_PUSH_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Wait for the body of a refusal.
pub const SSF_PUSH_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest body of a refusal that is read, in bytes: a code and a sentence.
pub const SSF_PUSH_ANSWER_BYTES_MAX: usize = 4096;

/// Longest wait between two tries of an event: five minutes after a receiver is back it hears of what happened.
pub const SSF_PUSH_BACKOFF_MAX: Duration = Duration::from_secs(300);

/// Events pushed in one go to one receiver, until its stream is looked at again.
pub const SSF_PUSH_BATCH: usize = 64;

/// Hosts that one receiver may have events pushed to.
pub const SSF_PUSH_HOSTS_MAX: usize = 16;

/// How often tokens are read again, old events are let go and keys are looked after.
pub const SSF_UPKEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Shortest token of a receiver, in bytes: 128 random bits in base64 have 22.
pub const SSF_TOKEN_BYTES_MIN: usize = 20;

/// Tokens in one file: the one in use, the next, and the last.
pub const SSF_TOKENS_MAX: usize = 8;

/// `ssf.transmitter.key_days`: how long a key signs.
pub const SSF_KEY_DAYS_RANGE: RangeInclusive<u64> = 2..=366;

/// How long a key is published before it signs. Receivers commonly keep a key set for up to a day.
pub const SSF_KEY_AHEAD: Duration = Duration::from_secs(86_400);

/// How long a key stays published after it signed for the last time: as long as an event lives, and a day for the receiver.
pub const SSF_KEY_KEEP: Duration = Duration::from_secs(8 * 86_400);

/// Size of the keys that events are signed with. The interoperability profile asks for 2048 bits at least.
pub const SSF_KEY_BITS: usize = 2048;

/// `ssf.transmitter.min_verification_interval_s`: from tests to once a day.
pub const SSF_VERIFICATION_INTERVAL_RANGE: RangeInclusive<u64> = 0..=86_400;

/// Rows of the state that wait for the disk. At 20,000 changes a second that is ten seconds of a disk that stands still.
pub const LEDGER_PENDING_MAX: usize = 200_000;

/// Rows in one commit: large enough that the fsync is the smaller part, small enough that nobody waits for a second.
pub const LEDGER_COMMIT_ROWS_MAX: usize = 16_384;

/// How long rows wait for the disk while nobody waits for them: fifty wake-ups a second of an idle thread cost nothing.
pub const LEDGER_LINGER: Duration = Duration::from_millis(20);

/// Between two attempts to write while the disk refuses.
pub const LEDGER_RETRY: Duration = Duration::from_secs(1);

/// Pages of the state's file in memory, in bytes; the operating system keeps more.
pub const LEDGER_CACHE_BYTES: usize = 32 << 20;

/// Sources of signals of which it is known when something was last heard. A bundle can expect 64; four times that leaves
/// room for those of a bundle that takes over, and for the curious.
pub const SIGNAL_SOURCES_MAX: usize = 256;
// --- shared signals in ---------------------------------------------------------------------------------

/// Time for a whole answer of a transmitter, once it has begun: a full poll of 4 MiB at 2 Mbit/s.
pub const SSF_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest life of a token that is used again: the CAEP interoperability profile allows an hour at most.
pub const SSF_TOKEN_LIFE_MAX: Duration = Duration::from_secs(3600);

/// How long before its end a token is no longer used: an answer under way must not outlive it.
pub const SSF_TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// Between two looks at an issuer's keys. A withdrawn key counts for so long; an issuer sees six looks an hour.
pub const SSF_KEYS_INTERVAL: Duration = Duration::from_secs(600);

/// Rest between two looks at the keys for tokens that name an unknown one: whoever makes up names of keys causes six
/// small requests a minute at most.
pub const SSF_KEYS_REST: Duration = Duration::from_secs(10);

/// Tokens that wait for the same look at the keys. The rest is told to come again later.
pub const SSF_KEYS_WAITING_MAX: usize = 16;

/// Time for a look at the keys, metadata included: transmitters wait for their answer meanwhile.
pub const SSF_KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long keys count whose issuer cannot be reached: a day's outage does not stop revocations.
pub const SSF_KEYS_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Transmitters that are listened to: identity providers, device managers and vendors of one organisation.
pub const SSF_RECEIVERS_MAX: usize = 64;

/// Longest name of a receiver, in bytes: it is a label of metrics.
pub const SSF_NAME_BYTES_MAX: usize = 64;

/// Rules for the subjects of one transmitter: some for each format and member.
pub const SSF_RULES_MAX: usize = 64;

/// `max_age_h`, in hours: from a transmitter that never repeats to one that was cut off for a month.
pub const SSF_MAX_AGE_H_RANGE: RangeInclusive<u64> = 1..=720;

/// Tokens that are remembered as seen, 60 bytes each in memory: a token a second for two days, or a storm of sixty a second
/// for an hour.
pub const SSF_SEEN_MAX: usize = 200_000;

/// Spent tokens that are forgotten with each new one, so that forgetting keeps up and never takes long.
pub const SSF_SEEN_FORGET_MAX: usize = 8;

/// Sessions that are looked at in one step when those of a device or tenant are looked for.
pub const SSF_PAGE: usize = 1000;

/// Connections to the port of signals: transmitters keep a few each.
pub const SSF_CONNECTIONS_MAX: usize = 512;

/// Buffer for the head of a request on the port of signals, in bytes: one bearer token of 8 KiB fits.
pub const SSF_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Wait for a whole body on the port of signals: 64 KiB in this time are 50 kbit/s.
pub const SSF_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for requests in flight on the port of signals when the process drains.
pub const SSF_DRAIN: Duration = Duration::from_secs(2);

/// When a transmitter is asked to send again what could not be taken in, in seconds.
pub const SSF_RETRY_AFTER_S: u16 = 5;

/// Rest between two readings of a file with texts that let callers in: strangers cause no more.
pub const SSF_SECRET_REST: Duration = Duration::from_secs(5);

/// Tokens that are asked for in one poll, about 2 KiB each.
pub const SSF_POLL_SETS_MAX: usize = 100;

/// Largest answer to a poll, in bytes: a hundred tokens of 40 KiB.
pub const SSF_POLL_BYTES_MAX: u64 = 4 << 20;

/// How much later than usual the answer to a long poll may begin: common proxies end silent connections after 60 s.
pub const SSF_POLL_WAIT: Duration = Duration::from_secs(60);

/// Rest between two polls: a transmitter that repeats what was acknowledged is asked ten times a second at most.
pub const SSF_POLL_REST: Duration = Duration::from_millis(100);

/// Between two looks at a stream: a transmitter that paused it is noticed within five minutes.
pub const SSF_STREAM_INTERVAL: Duration = Duration::from_secs(300);

/// Between two verifications of a stream: transmitters may refuse more than one in some minutes.
pub const SSF_VERIFY_INTERVAL: Duration = Duration::from_secs(3600);

/// Streams that a transmitter may list for us.
pub const SSF_STREAMS_MAX: usize = 64;

/// Changes of state that wait for one follower of the feed: half a second of 100,000 changes. A follower that lags further
/// looks at everything anew.
pub const FEED_QUEUE: usize = 65_536;

/// Between two times that policies have holds judged again though nothing changed. What is left out is not lost: what can change by itself
/// is looked at every second.
pub const NOTICES_INTERVAL: Duration = Duration::from_millis(10);

/// Principals whose risk is watched as it fades, to tell others: those above low at one time in a large incident.
pub const CONCLUDED_RISKS_MAX: usize = 100_000;

/// Between two looks at them: half-lives are minutes and more.
pub const CONCLUDED_RISKS_INTERVAL: Duration = Duration::from_secs(5);

/// Rows of sessions that are looked at in one step when what is over is dropped: some milliseconds of work.
pub const STATE_SWEEP_ROWS: usize = 10_000;

/// Between two snapshots of what sessions did, and two steps of dropping what is over. That much of behaviour is lost when
/// the process is killed.
pub const STATE_KEEPING_INTERVAL: Duration = Duration::from_secs(30);

/// Between two snapshots of what is counted. That much of it is lost when the process is killed.
pub const COUNTERS_KEEPING_INTERVAL: Duration = Duration::from_secs(5);

/// Allows that wait to be settled, about 150 bytes each: 4,000 a second that wait for a minute. An allow beyond it counts and
/// cannot be given back.
pub const RESERVATIONS_MAX: usize = 262_144;

// --- holds ---------------------------------------------------------------------------------------------

/// Holds of one node. A hold takes about 1 KiB with its attempt and its places in the index, so 1 GiB in all.
pub const HOLDS_MAX: usize = 1_000_000;

/// Holds of one stream: a gateway with as many long connections as a process has ports, four times over.
pub const HOLDS_PER_STREAM_MAX: usize = 262_144;

/// Bytes that the attempts of all holds take on the wire, where a typical one takes 300. In memory it is a few times as much.
pub const HOLDS_BYTES_MAX: u64 = 1 << 30;

/// Bytes of one held attempt on the wire: ids at their limit and some context. A larger one can be asked about each time.
pub const HOLD_ATTEMPT_BYTES_MAX: u64 = 16 * 1024;

/// Wait for the first message of a stream, as for a handshake.
pub const HOLD_OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Streams of one node, lost ones included. Enforcement points open one each, ours one for each process.
pub const HOLD_STREAMS_MAX: usize = 4096;

/// Messages of all streams that wait for the thread of the holds; a stream waits with its next one while there is no place.
pub const HOLD_REQUESTS_MAX: usize = 1024;

/// Attempts or hold ids in one message, as in a batch of decisions.
pub const HOLD_MESSAGE_MAX: usize = BATCH_ATTEMPTS_MAX;

/// Answers that wait on one stream. At some 700 bytes each 6 MiB; a change of one principal reaches fewer holds of one
/// enforcement point, and a reader that is 8,192 answers late had better begin anew.
pub const HOLD_OUTBOX_MAX: usize = 8192;

/// Answers in one message of ours: about 180 KiB, so that the first of many is on its way soon.
pub const HOLD_BATCH_MAX: usize = 256;

/// For how long the holds of a lost stream are kept: a restart of an enforcement point or a failover of a network takes
/// less, and nobody acts on their answers meanwhile.
pub const HOLD_RESUME: Duration = Duration::from_secs(30);

/// Something is heard on each stream at least this often.
pub const HOLD_HEARTBEAT: Duration = Duration::from_secs(1);

/// Longest rest of the thread of the holds; after it, lost streams are looked for and the pulse is felt.
pub const HOLD_ROUND: Duration = Duration::from_millis(100);

/// Holds that are judged between two looks at what changed: at 4 us each half a millisecond, half the budget of a push.
pub const HOLD_CHUNK: usize = 128;

/// Changes with more dependents than one part that wait to be worked off; beyond it all holds are judged again, once.
pub const HOLD_BACKLOG_MAX: usize = 64;

/// Holds that are judged again in a second after a change of bundle, at most: 100,000 take two thirds of a second, and the
/// thread rests in between if it is faster, so that decisions find a core.
pub const HOLD_SWEEP_PER_SECOND: u64 = 150_000;

/// Holds that are judged between two such rests: whoever decides on the same core waits less than a tenth of a millisecond.
pub const HOLD_SWEEP_CHUNK: usize = 16;

/// Holds whose next change cannot be calculated are looked at this often.
pub const HOLD_POLL: Duration = Duration::from_secs(1);

/// Looks at such holds in a second, at most: a fifth of a core. With more of them, each waits longer.
pub const HOLD_POLLS_PER_SECOND: u64 = 50_000;

/// Longest name of an enforcement point, in bytes; a host name or a SPIFFE id's path.
pub const HOLD_NAME_BYTES_MAX: usize = 128;

/// Holds in one page of a list.
pub const HOLD_PAGE_MAX: usize = 1000;
/// Largest body with scores, in bytes: a thousand reports of 600 bytes.
pub const SSF_SCORES_BYTES_MAX: usize = 1024 * 1024;
