//! The tx class: publishes and acknowledgements that wait for their commit.

use amq_protocol::protocol::{AMQPClass, tx};

use super::{ConnectionId, Core, Fault, Now, channel::Mode};

impl Core {
    pub(super) fn tx_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        method: &tx::AMQPMethod,
        now: Now,
    ) -> Result<(), Fault> {
        let channel = self.channel_mut(id, number)?;
        match method {
            tx::AMQPMethod::Select(_) => {
                match channel.mode {
                    Mode::Confirm => return Err(Fault::precondition("cannot switch from confirm to tx mode")),
                    Mode::Plain => channel.mode = Mode::Transaction(Default::default()),
                    Mode::Transaction(_) => {}
                }
                self.send_tx(id, number, tx::AMQPMethod::SelectOk(tx::SelectOk {}));
                Ok(())
            }
            tx::AMQPMethod::Commit(_) => self.commit(id, number, now),
            tx::AMQPMethod::Rollback(_) => {
                let Mode::Transaction(transaction) = &mut channel.mode else {
                    return Err(Fault::precondition("channel is not transactional"));
                };
                let transaction = std::mem::take(transaction);
                channel.restore(transaction.settlements);
                self.send_tx(id, number, tx::AMQPMethod::RollbackOk(tx::RollbackOk {}));
                Ok(())
            }
            _ => Err(Fault::unimplemented_method()),
        }
    }

    fn commit(&mut self, id: ConnectionId, number: u16, now: Now) -> Result<(), Fault> {
        let Mode::Transaction(transaction) = &mut self.channel_mut(id, number)?.mode else {
            return Err(Fault::precondition("channel is not transactional"));
        };
        let transaction = std::mem::take(transaction);
        let mut is_taken = true;
        for routable in &transaction.publishes {
            is_taken &= self.queue_up(id, number, routable, now);
        }
        let freed = self.apply(id, number, transaction.settlements, now);
        if !is_taken {
            self.deliver_all(id, freed, now);
            return Err(Fault::precondition("partial tx completion"));
        }
        self.send_tx(id, number, tx::AMQPMethod::CommitOk(tx::CommitOk {}));
        self.deliver_all(id, freed, now);
        Ok(())
    }

    fn send_tx(&mut self, id: ConnectionId, number: u16, method: tx::AMQPMethod) {
        self.sessions.send(id, number, &AMQPClass::Tx(method));
    }
}
