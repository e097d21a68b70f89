//! Parity: the same scenarios, frame by frame, on RabbitMQ and on the bundled broker.
//!
//! The transcripts in `parity/*.txt` are what RabbitMQ 3.10.8 answers, literally; the bundled broker has to answer
//! the same, except where a scenario says why it does not (`differs: …`).
//!
//! Both have the users, vhosts and permissions of `definitions.json`.
//!
//! ```text
//!  RPC_TEST_RABBITMQ_URL=amqp://…                     also check the recordings against that RabbitMQ
//!  UPDATE_PARITY=1                                    and record its answers anew
//!  PARITY_ONLY=queue/                                 only scenarios with that in their name
//! ```

mod link;
mod names;
mod run;
mod scenario;

use std::{
    env,
    net::ToSocketAddrs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rpc_tests::wire::Method;
use run::{Pace, Target, Transcript};
use scenario::{File, Scenario, Step};

#[test]
fn rabbitmq_gives_the_recorded_transcripts() {
    let Ok(uri) = env::var(RABBITMQ_URL) else {
        println!("skipped: {RABBITMQ_URL} is not set");
        return;
    };
    let target = target(&uri);
    let mut files = File::all().expect("the scenarios can be read");
    if env::var_os("UPDATE_PARITY").is_some() {
        record(&files, &target);
        files = File::all().expect("the scenarios can be read");
    }
    compare(&files, &target, |step| &step.rabbitmq);
}

#[test]
fn the_bundled_broker_gives_the_same_transcripts() {
    let runtime = tokio::runtime::Runtime::new().expect("the operating system gives threads");
    let broker = runtime.block_on(rpc_tests::broker().start()).expect("the bundled broker starts");
    let files = File::all().expect("the scenarios can be read");
    for scenario in files.iter().flat_map(|file| &file.scenarios) {
        if let Some(reason) = &scenario.differs {
            println!("{} differs from RabbitMQ: {reason}", scenario.name);
        }
    }
    compare(&files, &target(broker.uri()), |step| step.bundled.as_ref().unwrap_or(&step.rabbitmq));
    runtime.block_on(broker.shutdown());
}

#[test]
fn every_difference_has_its_reason() {
    for scenario in File::all().expect("the scenarios can be read").iter().flat_map(|file| &file.scenarios) {
        let differs = scenario.steps.iter().any(|step| step.bundled.is_some());
        assert_eq!(differs, scenario.differs.is_some(), "{}: a reason and an answer belong together", scenario.name);
    }
}

#[test]
fn every_method_queue_argument_and_reply_code_occurs() {
    let files = File::all().expect("the scenarios can be read");
    let steps: Vec<_> = files.iter().flat_map(|file| &file.scenarios).flat_map(|scenario| &scenario.steps).collect();
    let occurs = |text: &str| {
        let lines = |step: &&Step| step.commands.iter().chain(&step.rabbitmq).any(|line| line.contains(text));
        steps.iter().any(lines)
            || steps.iter().any(|step| step.bundled.iter().flatten().any(|line| line.contains(text)))
    };
    let methods = Method::all().map(|method| format!("{} ", method.name)).filter(|name| !ABSENT.contains(&name.trim()));
    let replies = REPLY_CODES.iter().map(|code| format!("{code} "));
    let arguments = QUEUE_ARGUMENTS.iter().map(|name| format!("{name}:"));
    // Without arguments, a method is the end of its line.
    let is_missing = |text: &String| !occurs(text) && !occurs(&format!(" {}", text.trim()));
    let missing: Vec<_> = methods.chain(replies).chain(arguments).filter(is_missing).collect();
    assert!(missing.is_empty(), "no scenario has {missing:?}");
}

fn record(files: &[File], target: &Target) {
    let transcripts = run_all(files, target, Pace::Record, |step| &step.rabbitmq);
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
        file.record(&answers).expect("the recording can be written");
    }
}

/// Runs all scenarios and panics with what is not as expected.
fn compare(files: &[File], target: &Target, expected: fn(&Step) -> &[String]) {
    let transcripts = run_all(files, target, Pace::Compare, expected);
    let scenarios = files.iter().flat_map(|file| &file.scenarios);
    let (mut run, mut equal, mut report) = (0, 0, String::new());
    for (scenario, transcript) in scenarios.zip(transcripts) {
        let Some(transcript) = transcript else { continue };
        run += 1;
        match difference(scenario, &transcript, expected) {
            Some(difference) => report.push_str(&difference),
            None => equal += 1,
        }
    }
    println!("{equal} of {run} scenarios as recorded");
    assert!(report.is_empty(), "{equal} of {run} scenarios as recorded; the others:\n{report}");
}

fn difference(scenario: &Scenario, transcript: &Transcript, expected: fn(&Step) -> &[String]) -> Option<String> {
    let name = &scenario.name;
    let answers = match transcript {
        Ok(answers) => answers,
        Err(error) => return Some(format!("\n== {name}\n   {error}\n")),
    };
    let (step, answers) = scenario.steps.iter().zip(answers).find(|(step, answers)| expected(step) != *answers)?;
    let mut text = format!("\n== {name}\n");
    step.commands.iter().for_each(|command| text.push_str(&format!("   > {command}\n")));
    expected(step).iter().for_each(|line| text.push_str(&format!("   expected < {line}\n")));
    answers.iter().for_each(|line| text.push_str(&format!("   got      < {line}\n")));
    Some(text)
}

/// Runs the selected scenarios on a few threads: they mostly wait. `None` for those not selected.
fn run_all(files: &[File], target: &Target, pace: Pace, expected: fn(&Step) -> &[String]) -> Vec<Option<Transcript>> {
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
                        let transcript = run::run(scenario, target, at, pace, expected);
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
    let (user, address) = uri.trim_start_matches("amqp://").rsplit_once('@').unwrap_or(("guest:guest", uri));
    let (user, password) = user.split_once(':').expect("user:password");
    let address = address.trim_start_matches("amqp://").split('/').next().expect("an address");
    let address = address.to_socket_addrs().expect("host:port").next().expect("an address");
    Target { address, user: user.to_owned(), password: password.to_owned() }
}

/// RabbitMQ's mechanisms need no second round, and nothing here makes it run out of memory or disk.
const ABSENT: [&str; 3] = ["connection.secure", "connection.secure-ok", "connection.unblocked"];
/// 320 needs a broker that shuts down; 311, 313, 402 and 506 are sent by no broker.
const REPLY_CODES: [u16; 13] = [312, 403, 404, 405, 406, 501, 502, 503, 504, 505, 530, 540, 541];
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
