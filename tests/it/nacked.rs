//! Requests that RabbitMQ nacks: those of calls were not delivered, so a call is sent again, or ends as not executed.
//!
//! The process of a queue is ended under a load, which RabbitMQ starts again: what it had not confirmed is nacked. That test is for
//! a node nobody else uses, which `tests/run` names in `RPC_TEST_RABBITMQ_CTL`.

mod rabbitmq {
    use std::{
        collections::HashSet,
        process::Stdio,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use lapin::{
        BasicProperties, Channel, Confirmation,
        options::{
            BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
        },
        types::{AMQPValue, FieldTable},
    };
    use rpc_tests::{eventually, within};
    use tokio::process::Command;

    use crate::kill_points::world::World;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "alone: it ends processes of the node; `tests/run` does"]
    async fn a_nacked_request_of_a_call_was_not_delivered() {
        let Some(World::RabbitMq { uri, ctl }) = World::rabbitmq() else {
            println!("skipped: no RabbitMQ whose processes this test may end");
            return;
        };
        for (kind, is_persistent) in [("classic", false), ("quorum", false), ("quorum", true), ("classic", true)] {
            let mut total = Fates::default();
            for round in 0..ROUNDS {
                let queue = format!("nacked.{kind}.{is_persistent}.{round}");
                let Fates { acked, nacked, both } = end_queue(&uri, &ctl, (kind, &queue), is_persistent).await;
                total = Fates { acked: total.acked + acked, nacked: total.nacked + nacked, both: total.both + both };
            }
            println!("{kind}, persistent {is_persistent}: {total:?}");
            // Requests of calls are transient. Nothing keeps a classic queue from delivering a persistent message before it is
            // stored, so a one-way request may come twice; it is known by its message_id then.
            if !is_persistent || kind == "quorum" {
                assert_eq!(total.both, 0, "{kind}, persistent {is_persistent}");
            }
        }
    }

    /// Messages that were acked, nacked, and nacked although they were delivered.
    #[derive(Debug, Default)]
    struct Fates {
        acked: usize,
        nacked: usize,
        both: usize,
    }

    /// Publishes and consumes while the queue's process is ended.
    async fn end_queue(uri: &str, ctl: &str, (kind, queue): (&str, &str), is_persistent: bool) -> Fates {
        let connection = lapin::Connection::connect(uri, Default::default()).await.unwrap();
        let publisher = connection.create_channel().await.unwrap();
        publisher.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        publisher.queue_declare(queue.into(), options, arguments).await.unwrap();
        let delivered = Arc::new(Mutex::new(HashSet::new()));
        let consuming =
            tokio::spawn(consume(connection.create_channel().await.unwrap(), queue.to_owned(), Arc::clone(&delivered)));
        let find = format!("{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{queue}\">>))");
        let end = "case amqqueue:get_pid(Q) of {Name, _} -> exit(whereis(Name), kill); Pid -> exit(Pid, kill) end";
        let mut ending = Command::new(ctl)
            .args(["eval", &format!("{find}, {end}.")])
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (mut acked, mut nacked, mut number) = (0, Vec::new(), 0_u32);
        let mut is_over = false;
        while !is_over {
            // A batch after the end meets a queue that is being started again.
            is_over = ending.try_wait().unwrap().is_some();
            let mut confirms = Vec::new();
            for _ in 0..BATCH {
                number += 1;
                confirms.push((number, publish(&publisher, queue, number, is_persistent).await));
            }
            for (number, confirm) in confirms {
                match within(LIMIT, "a confirm", confirm).await.unwrap() {
                    Confirmation::Ack(_) => acked += 1,
                    Confirmation::Nack(_) => nacked.push(number),
                    Confirmation::NotRequested => unreachable!("the channel is in confirm mode"),
                }
            }
        }
        // A message of the queue's new life comes after all that were in it.
        eventually(LIMIT, "the queue delivers again", async || {
            number += 1;
            let confirm = publish(&publisher, queue, number, is_persistent).await;
            let is_acked = matches!(within(LIMIT, "a confirm", confirm).await, Ok(Confirmation::Ack(_)));
            is_acked && delivered.lock().unwrap().contains(&number)
        })
        .await;
        consuming.abort();
        // RabbitMQ may have given up a queue whose process ends too often; then there is nothing to delete.
        let channel = connection.create_channel().await.unwrap();
        drop(channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await);
        // A channel that is closed at the same moment, as the consumer's is, is an error to lapin.
        drop(connection.close(200, "done".into()).await);
        let delivered = delivered.lock().unwrap();
        let both = nacked.iter().filter(|number| delivered.contains(number)).count();
        Fates { acked, nacked: nacked.len(), both }
    }

    async fn publish(channel: &Channel, queue: &str, number: u32, is_persistent: bool) -> lapin::PublisherConfirm {
        let properties = BasicProperties::default().with_delivery_mode(if is_persistent { 2 } else { 1 });
        let body = number.to_be_bytes();
        let options = BasicPublishOptions::default();
        channel.basic_publish("".into(), queue.into(), options, &body, properties).await.unwrap()
    }

    /// Notes what is delivered, and consumes again when the queue's end has ended that.
    async fn consume(channel: Channel, queue: String, delivered: Arc<Mutex<HashSet<u32>>>) {
        use std::{future::poll_fn, pin::Pin};

        use futures_core::Stream;
        loop {
            let options = BasicConsumeOptions { no_ack: true, ..Default::default() };
            let consumer =
                channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await;
            if let Ok(mut consumer) = consumer {
                while let Some(Ok(delivery)) = poll_fn(|cx| Pin::new(&mut consumer).poll_next(cx)).await {
                    let number = u32::from_be_bytes(delivery.data.try_into().unwrap());
                    delivered.lock().unwrap().insert(number);
                }
            }
            // The node is starting the queue's process again.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    const ROUNDS: usize = 2;
    const BATCH: usize = 50;
    const LIMIT: Duration = Duration::from_secs(30);
}
