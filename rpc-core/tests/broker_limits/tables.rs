//! Nested tables.

use rpc_core::broker::Broker;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::socket::{DECLARE_OK, LIMIT, channel_open, frame, method, open, publish_with, ready, until};

/// A table that is nested to this depth.
fn nested(depth: usize) -> Vec<u8> {
    let mut table = vec![0; 4];
    for _ in 0..depth {
        let mut outer = ((table.len() + 3) as u32).to_be_bytes().to_vec();
        outer.extend([1, b'k', b'F']);
        outer.append(&mut table);
        table = outer;
    }
    table
}

/// The same, of arrays.
fn nested_arrays(depth: usize) -> Vec<u8> {
    let mut array = vec![0; 4];
    for _ in 1..depth {
        let mut outer = ((array.len() + 1) as u32).to_be_bytes().to_vec();
        outer.push(b'A');
        outer.append(&mut array);
        array = outer;
    }
    let mut table = ((array.len() + 3) as u32).to_be_bytes().to_vec();
    table.extend([1, b'k', b'A']);
    table.append(&mut array);
    table
}

/// `queue.declare` of `q` with arguments.
fn declare(arguments: &[u8]) -> Vec<u8> {
    let mut declare = vec![0, 50, 0, 10, 0, 0, 1, b'q', 0];
    declare.extend(arguments);
    method(1, &declare)
}

/// The close that a client receives when these bytes on channel 1 end its connection.
async fn answer(broker: &Broker, bytes: &[u8]) -> String {
    let mut stream = open(broker, 0).await;
    stream.write_all(&[&channel_open(), bytes].concat()).await.unwrap();
    let close = timeout(LIMIT, until(&mut stream, CONNECTION_CLOSE)).await.unwrap();
    String::from_utf8_lossy(&close[3..]).into_owned()
}

#[tokio::test]
async fn tables_are_as_deep_as_the_limit_in_methods_and_in_messages() {
    for limit in [1, 3, 128] {
        let broker = Broker::builder().table_depth_max(limit).start().await.unwrap();
        let mut stream = open(&broker, 0).await;
        stream.write_all(&[channel_open(), declare(&nested(limit))].concat()).await.unwrap();
        until(&mut stream, DECLARE_OK).await;
        for headers in [nested(limit), nested_arrays(limit)] {
            stream.write_all(&publish_with("q", &headers, b"in one frame")).await.unwrap();
        }
        assert_eq!(ready(&mut stream).await, 2, "{limit}");

        for table in [nested(limit + 1), nested_arrays(limit + 1)] {
            let answer_to_method = answer(&broker, &declare(&table)).await;
            assert!(answer_to_method.contains("FRAME_ERROR - cannot decode"), "{limit}: {answer_to_method}");
            let message = publish_with("q", &table, b"in one frame");
            let answer_to_message = answer(&broker, &message).await;
            assert!(answer_to_message.contains("INTERNAL_ERROR"), "{limit}: {answer_to_message}");
        }
        assert_eq!(ready(&mut stream).await, 2, "{limit}");
    }
}

#[tokio::test]
async fn a_message_that_comes_frame_by_frame_has_the_same_limit() {
    let broker = Broker::builder().table_depth_max(2).start().await.unwrap();
    let mut stream = open(&broker, 0).await;
    stream.write_all(&[channel_open(), declare(&nested(0))].concat()).await.unwrap();
    until(&mut stream, DECLARE_OK).await;
    let publish = method(1, &[0, 60, 0, 40, 0, 0, 0, 1, b'q', 0]);
    let header = |depth| {
        let mut header = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x20, 0];
        header.extend(nested(depth));
        frame(2, 1, &header)
    };
    let halves = [frame(3, 1, b"a"), frame(3, 1, b"b")].concat();
    stream.write_all(&[&publish[..], &header(2), &halves].concat()).await.unwrap();
    assert_eq!(ready(&mut stream).await, 1);
    let answer = answer(&broker, &[&publish[..], &header(3), &halves].concat()).await;
    assert!(answer.contains("INTERNAL_ERROR"), "{answer}");
}

#[tokio::test]
async fn a_table_nested_without_end_is_refused() {
    let broker = Broker::start().await.unwrap();
    let answer = answer(&broker, &declare(&nested(18_000))).await;
    assert!(answer.contains("FRAME_ERROR - cannot decode"), "{answer}");
    open(&broker, 0).await;
}

#[tokio::test]
async fn a_limit_that_the_stack_does_not_bear_is_refused() {
    for limit in [0, 129, usize::MAX] {
        let error = Broker::builder().table_depth_max(limit).start().await.err().unwrap();
        assert_eq!(error.to_string(), format!("table_depth_max {limit} is not between 1 and 128"));
    }
}

const CONNECTION_CLOSE: [u8; 4] = [0, 10, 0, 50];
