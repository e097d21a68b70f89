//! Kills something at every point of a call's life: the call ends as promised, and executions are counted.
//!
//! ```text
//!  client ── proxy ── broker ── proxy ── worker process (its gate holds handlers back)
//! ```
//!
//! [`table`] is the promise. For each fault all sixteen calls (eight points, idempotent and not) are brought to their
//! points, the fault strikes them together, and the world goes on. On RabbitMQ this stops and blocks the node, so it
//! needs one of its own: `tests/run` gives it that by `RPC_TEST_RABBITMQ_CTL`.

mod case;
pub(crate) mod table;
pub(crate) mod world;

use std::path::Path;

use case::Case;
use table::{Fault, Outcome, Row, TABLE};
use tokio::task::{LocalSet, spawn_local};
use world::World;

mod bundled {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it starts a hundred processes; `tests/run` does, or `cargo it --ignored kill_points::bundled`"]
    async fn every_call_ends_as_the_table_says() {
        super::measure(super::World::bundled().await).await;
    }
}

mod rabbitmq {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it stops and blocks the node; `tests/run` does"]
    async fn every_call_ends_as_the_table_says() {
        match super::World::rabbitmq() {
            Some(world) => super::measure(world).await,
            None => println!("skipped: no RabbitMQ that this test may stop"),
        }
    }
}

/// Measures the whole table, and compares it with the promise.
async fn measure(world: World) {
    // Cases wait with closures that borrow, which no other thread may take over.
    LocalSet::new().run_until(run(world)).await;
}

async fn run(mut world: World) {
    let mut measured = TABLE.to_vec();
    for (at, fault) in Fault::ALL.into_iter().enumerate() {
        let began = std::time::Instant::now();
        for (row, outcomes) in measured.iter_mut().zip(strike(&mut world, fault).await) {
            row.cells[at] = outcomes;
        }
        println!("{fault:?}: {:.1} s", began.elapsed().as_secs_f64());
    }
    let text = table::render(&measured);
    println!("{text}");
    let differences = differences(&measured);
    assert!(differences.is_empty(), "not as promised:\n  {}\n", differences.join("\n  "));
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        update_guide(&text);
    }
}

/// One fault, at every point: for each, the outcome of the idempotent call and of the other.
async fn strike(world: &mut World, fault: Fault) -> Vec<[Outcome; 2]> {
    let mut begun = Vec::new();
    for (at, row) in TABLE.iter().enumerate() {
        for (kind, is_idempotent) in [true, false].into_iter().enumerate() {
            let promised = row.cells[fault as usize][kind];
            let place = world.place(format!("kill-{at}-{}-{}", fault as usize, if is_idempotent { "i" } else { "o" }));
            begun.push(spawn_local(Case::begin(place, row.point, fault, is_idempotent, promised.executions)));
        }
    }
    let mut cases = Vec::new();
    for case in begun {
        cases.push(case.await.unwrap());
    }
    for case in &mut cases {
        case.strike();
    }
    match fault {
        Fault::BrokerRestarted => world.restart().await,
        Fault::BrokerBlocked => {
            world.block().await;
            for case in &mut cases {
                if world.is_bundled() {
                    case.block();
                }
                case.resume();
            }
            for case in &mut cases {
                case.feels_the_block().await;
            }
            world.unblock().await;
        }
        Fault::WorkerKilled | Fault::WorkerCut | Fault::ClientCut | Fault::WorkerGone => {}
    }
    let ended: Vec<_> = cases.into_iter().map(|case| spawn_local(case.finish())).collect();
    let mut outcomes = Vec::new();
    for case in ended {
        outcomes.push(case.await.unwrap());
    }
    outcomes.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect()
}

fn differences(measured: &[Row]) -> Vec<String> {
    let mut differences = Vec::new();
    for (measured, promised) in measured.iter().zip(TABLE) {
        let point = promised.point;
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            for (kind, name) in ["idempotent", "not idempotent"].into_iter().enumerate() {
                let (measured, promised) = (measured.cells[at][kind], promised.cells[at][kind]);
                if measured != promised {
                    differences.push(format!("{point:?}, {fault:?}, {name}: {measured:?} instead of {promised:?}"));
                }
            }
        }
    }
    differences
}

fn update_guide(table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rpc-core/docs/guarantees.md");
    let mut chapter = std::fs::read_to_string(&path).unwrap();
    let range = table::marked(&chapter).expect("the chapter marks the table's place");
    chapter.replace_range(range, table);
    std::fs::write(&path, chapter).unwrap();
}
