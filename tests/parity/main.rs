//! Parity: the same scenarios, frame by frame, on RabbitMQ and on the bundled broker.
//!
//! The transcripts in `parity/*.txt` are what RabbitMQ 3.10.8 and 4.3.6 answer, literally. With the profile of that version,
//! the bundled broker has to answer the same, except where a scenario says why it does not (`differs: …`).
//!
//! All have the users, vhosts and permissions of `definitions.json`.
//!
//! ```text
//!  RPC_TEST_RABBITMQ_URL=amqp://…                     also check the recordings of that RabbitMQ's version against it;
//!                                                     of a version that is not recorded, the differences are only printed
//!  UPDATE_PARITY=1                                    and record its answers anew, for its version
//!  PARITY_ONLY=queue/                                 only scenarios with that in their name
//! ```

mod link;
mod names;
mod run;
mod scenario;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::ToSocketAddrs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rpc_tests::wire::Method;
use run::{Pace, Target, Transcript};
use scenario::{Answerer, File, Scenario, Step};
use version::{Reported, Version};

#[test]
fn rabbitmq_gives_the_recorded_transcripts() {
    let Ok(uri) = env::var(RABBITMQ_URL) else {
        println!("skipped: {RABBITMQ_URL} is not set");
        return;
    };
    let target = target(&uri);
    let reported = Reported::by(&target);
    let mut files = File::all().expect("the scenarios can be read");
    if env::var_os("UPDATE_PARITY").is_some() {
        let version = reported.known.unwrap_or_else(|| panic!("answers of {} are not recorded", reported.text));
        record(&files, &target, version);
        files = File::all().expect("the scenarios can be read");
    }
    println!("RabbitMQ {}", reported.text);
    let report = compare(&files, &target, Answerer::RabbitMq(reported.nearest()));
    if reported.known.is_none() {
        return println!("{report}\nRabbitMQ {} is not recorded: its answers fail no test", reported.text);
    }
    assert!(report.is_empty(), "{report}");
}

#[test]
fn the_bundled_broker_gives_the_same_transcripts() {
    answers_as(Version::V3_10);
}

#[test]
fn the_bundled_broker_gives_the_same_transcripts_as_rabbitmq_4_3() {
    answers_as(Version::V4_3);
}

fn answers_as(version: Version) {
    let runtime = tokio::runtime::Runtime::new().expect("the operating system gives threads");
    let builder = rpc_tests::broker().profile(version.profile());
    let broker = runtime.block_on(builder.start()).expect("the bundled broker starts");
    let files = File::all().expect("the scenarios can be read");
    for scenario in files.iter().flat_map(|file| &file.scenarios) {
        if let Some(reason) = scenario.difference(version) {
            println!("{} differs from RabbitMQ: {reason}", scenario.name);
        }
    }
    let target = target(broker.uri());
    assert_eq!(Reported::by(&target).known, Some(version));
    let report = compare(&files, &target, Answerer::Bundled(version));
    assert!(report.is_empty(), "{report}");
    runtime.block_on(broker.shutdown());
}

#[test]
fn every_difference_has_its_reason() {
    let files = File::all().expect("the scenarios can be read");
    let scenarios = || files.iter().flat_map(|file| &file.scenarios);
    for scenario in scenarios() {
        assert!(!scenario.has_idle_reason(), "{}: a reason for a difference that there is not", scenario.name);
    }
    for version in Version::ALL {
        let differing: Vec<_> =
            scenarios().filter_map(|scenario| Some((scenario, scenario.difference(version)?))).collect();
        for (scenario, reason) in &differing {
            assert!(!reason.is_empty(), "{}: a difference without a reason", scenario.name);
        }
        let count = differing.len();
        assert!(count <= DIFFERENCES_MAX, "{count} scenarios differ from RabbitMQ ({version:?})");
    }
}

#[test]
fn the_guide_lists_the_differences() {
    const BEGIN: &str = "<!-- differences: from the scenarios, see tests/parity/main.rs -->\n\n";
    const END: &str = "<!-- end of differences -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rpc-core/docs/broker.md");
    let mut chapter = fs::read_to_string(&path).expect("the chapter can be read");
    let begin = chapter.find(BEGIN).expect("the chapter marks the table") + BEGIN.len();
    let end = begin + chapter[begin..].find(END).expect("the chapter marks the table's end");
    let table = differences(&File::all().expect("the scenarios can be read"));
    if env::var_os("UPDATE_GUIDE").is_some() {
        chapter.replace_range(begin..end, &table);
        return fs::write(&path, &chapter).expect("the chapter can be written");
    }
    assert_eq!(&chapter[begin..end], table, "UPDATE_GUIDE=1 cargo test -p rpc-tests --test parity the_guide writes it");
}

/// The reasons of all differences, with the profiles that have them and the number of their scenarios.
fn differences(files: &[File]) -> String {
    let mut reasons = BTreeMap::<&str, (Vec<&str>, BTreeSet<&str>)>::new();
    for (version, name) in Version::ALL.into_iter().zip(["3.10", "4.3"]) {
        for scenario in files.iter().flat_map(|file| &file.scenarios) {
            let Some(reason) = scenario.difference(version) else { continue };
            let (versions, scenarios) = reasons.entry(reason).or_default();
            if versions.last() != Some(&name) {
                versions.push(name);
            }
            scenarios.insert(&scenario.name);
        }
    }
    let mut table = "| difference | profiles | scenarios |\n|---|---|---|\n".to_owned();
    for (reason, (versions, scenarios)) in reasons {
        let scenarios: Vec<_> = scenarios.iter().map(|name| format!("`{name}`")).collect();
        table.push_str(&format!("| {reason} | {} | {} |\n", versions.join(", "), scenarios.join(", ")));
    }
    table + "\n"
}

#[test]
fn every_method_queue_argument_and_reply_code_occurs() {
    let files = File::all().expect("the scenarios can be read");
    let steps: Vec<_> = files.iter().flat_map(|file| &file.scenarios).flat_map(|scenario| &scenario.steps).collect();
    let occurs = |text: &str| steps.iter().flat_map(|step| step.lines()).any(|line| line.contains(text));
    let methods = Method::all().map(|method| format!("{} ", method.name)).filter(|name| !ABSENT.contains(&name.trim()));
    let replies = REPLY_CODES.iter().map(|code| format!("{code} "));
    let arguments = QUEUE_ARGUMENTS.iter().map(|name| format!("{name}:"));
    // Without arguments, a method is the end of its line.
    let is_missing = |text: &String| !occurs(text) && !occurs(&format!(" {}", text.trim()));
    let missing: Vec<_> = methods.chain(replies).chain(arguments).filter(is_missing).collect();
    assert!(missing.is_empty(), "no scenario has {missing:?}");
}

fn record(files: &[File], target: &Target, version: Version) {
    let transcripts = run_all(files, target, Pace::Record, Answerer::RabbitMq(version));
    let mut transcripts = transcripts.into_iter();
    for file in files {
        let answers: Vec<_> = file
            .scenarios
            .iter()
            .zip(transcripts.by_ref())
            .map(|(scenario, transcript)| {
                transcript.map(|transcript| transcript.unwrap_or_else(|error| panic!("{}: {error}", scenario.name)))
            })
            .collect();
        file.record(version, &answers).expect("the recording can be written");
    }
}

/// Runs all scenarios. Returns what is not as expected; nothing if all is.
fn compare(files: &[File], target: &Target, answerer: Answerer) -> String {
    let transcripts = run_all(files, target, Pace::Compare, answerer);
    let scenarios = files.iter().flat_map(|file| &file.scenarios);
    let (mut run, mut equal, mut report) = (0, 0, String::new());
    for (scenario, transcript) in scenarios.zip(transcripts) {
        let Some(transcript) = transcript else { continue };
        run += 1;
        match difference(scenario, &transcript, answerer) {
            Some(difference) => report.push_str(&difference),
            None => equal += 1,
        }
    }
    println!("{equal} of {run} scenarios as recorded");
    if report.is_empty() { report } else { format!("{equal} of {run} scenarios as recorded; the others:\n{report}") }
}

fn difference(scenario: &Scenario, transcript: &Transcript, answerer: Answerer) -> Option<String> {
    let name = &scenario.name;
    let answers = match transcript {
        Ok(answers) => answers,
        Err(error) => return Some(format!("\n== {name}\n   {error}\n")),
    };
    let is_other = |(step, answers): &(&Step, &Vec<String>)| step.expected(answerer) != **answers;
    let (step, answers) = scenario.steps.iter().zip(answers).find(is_other)?;
    let mut text = format!("\n== {name}\n");
    step.commands.iter().for_each(|command| text.push_str(&format!("   > {command}\n")));
    step.expected(answerer).iter().for_each(|line| text.push_str(&format!("   expected < {line}\n")));
    answers.iter().for_each(|line| text.push_str(&format!("   got      < {line}\n")));
    Some(text)
}

/// Runs the selected scenarios on a few threads: they mostly wait. `None` for those not selected.
fn run_all(files: &[File], target: &Target, pace: Pace, answerer: Answerer) -> Vec<Option<Transcript>> {
    let only = env::var("PARITY_ONLY").unwrap_or_default();
    let scenarios: Vec<_> = files.iter().flat_map(|file| &file.scenarios).collect();
    let transcripts = Mutex::new(Vec::new());
    transcripts.lock().expect("nothing panics with it").resize_with(scenarios.len(), || None);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(scenario) = scenarios.get(at)
                {
                    if scenario.name.contains(&only) {
                        let transcript = run::run(scenario, target, at, pace, answerer);
                        transcripts.lock().expect("nothing panics with it")[at] = Some(transcript);
                    }
                }
            });
        }
    });
    transcripts.into_inner().expect("nothing panics with it")
}

/// The broker at `amqp://user:password@host:port`.
fn target(uri: &str) -> Target {
    let (user, _) = uri.trim_start_matches("amqp://").rsplit_once('@').unwrap_or(("guest:guest", uri));
    let (user, password) = user.split_once(':').expect("user:password");
    let address = rpc_tests::address_of(uri).to_socket_addrs().expect("host:port").next().expect("an address");
    Target { address, user: user.to_owned(), password: password.to_owned() }
}

/// RabbitMQ's mechanisms need no second round, and nothing here makes it run out of memory or disk.
const ABSENT: [&str; 3] = ["connection.secure", "connection.secure-ok", "connection.unblocked"];
/// 320 needs a broker that shuts down; 311, 313, 402 and 502 are sent by no broker.
const REPLY_CODES: [u16; 13] = [312, 403, 404, 405, 406, 501, 503, 504, 505, 506, 530, 540, 541];
const QUEUE_ARGUMENTS: [&str; 14] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-mode",
    "x-queue-version",
    "x-delivery-limit",
    "x-queue-leader-locator",
];
const RABBITMQ_URL: &str = "RPC_TEST_RABBITMQ_URL";
const THREADS: usize = 12;
/// The most scenarios in which a profile may differ from its version of RabbitMQ.
const DIFFERENCES_MAX: usize = 25;
