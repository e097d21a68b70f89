//! The exchange class.

use amq_protocol::{
    protocol::{
        AMQPClass,
        exchange::{AMQPMethod, Bind, BindOk, Declare, DeclareOk, Delete, DeleteOk, Unbind, UnbindOk},
    },
    types::AMQPValue,
};

use super::{
    ConnectionId, Core, Fault,
    access::{Resource, Right},
    queue_arguments::type_name,
    session::drop_line_breaks,
};
use crate::routing::{Declared, Destination, ExchangeKind, ExchangeOptions, RoutingError};

impl Core {
    pub(super) fn exchange_method(
        &mut self,
        id: ConnectionId,
        number: u16,
        mut method: AMQPMethod,
    ) -> Result<(), Fault> {
        match &mut method {
            AMQPMethod::Declare(declare) => drop_line_breaks(&mut declare.exchange),
            AMQPMethod::Delete(delete) => drop_line_breaks(&mut delete.exchange),
            AMQPMethod::Bind(bind) => {
                drop_line_breaks(&mut bind.source);
                drop_line_breaks(&mut bind.destination);
            }
            AMQPMethod::Unbind(unbind) => {
                drop_line_breaks(&mut unbind.source);
                drop_line_breaks(&mut unbind.destination);
            }
            _ => {}
        }
        let (nowait, ok) = match method {
            AMQPMethod::Declare(declare) => {
                self.declare_exchange(id, &declare)?;
                (declare.nowait, AMQPMethod::DeclareOk(DeclareOk {}))
            }
            AMQPMethod::Delete(delete) => {
                self.delete_exchange(id, &delete)?;
                (delete.nowait, AMQPMethod::DeleteOk(DeleteOk {}))
            }
            AMQPMethod::Bind(bind) => {
                self.bind_exchange(id, &bind)?;
                (bind.nowait, AMQPMethod::BindOk(BindOk {}))
            }
            AMQPMethod::Unbind(unbind) => {
                self.unbind_exchange(id, &unbind)?;
                (unbind.nowait, AMQPMethod::UnbindOk(UnbindOk {}))
            }
            _ => return Err(Fault::unimplemented_method()),
        };
        if !nowait {
            self.sessions.send(id, number, &AMQPClass::Exchange(ok));
        }
        Ok(())
    }

    fn declare_exchange(&mut self, id: ConnectionId, declare: &Declare) -> Result<(), Fault> {
        let (vhost, _) = self.vhost(id)?;
        let name = declare.exchange.as_str();
        if name.is_empty() {
            return Err(Fault::default_exchange());
        }
        if declare.passive {
            return match vhost.router.exchange(name) {
                Some(_) => Ok(()),
                None => Err(Fault::no_exchange(name, &vhost.name)),
            };
        }
        let kind = declare.kind.as_str();
        let Some(kind) = ExchangeKind::from_name(kind) else {
            return Err(Fault::unknown_exchange_type(kind));
        };
        self.authorize(id, Right::Configure, Resource::Exchange(name))?;
        let has_memory = self.need_memory(&format_args!("declare exchange '{name}'"));
        let (vhost, sessions) = self.vhost(id)?;
        let is_new = vhost.router.exchange(name).is_none();
        if name.starts_with("amq.") && is_new {
            return Err(Fault::reserved_name("exchange", name));
        }
        if is_new {
            has_memory?;
        }
        if is_new && vhost.router.exchange_count() >= vhost.limits.exchanges_max {
            return Err(Fault::limit_reached("exchange", name, &vhost.name, vhost.limits.exchanges_max));
        }
        let mut options = ExchangeOptions::new(kind);
        options.durable = declare.durable;
        options.auto_delete = declare.auto_delete;
        options.internal = declare.internal;
        options.arguments = declare.arguments.clone();
        options.alternate_exchange = match declare.arguments.inner().get("alternate-exchange") {
            None => None,
            Some(AMQPValue::LongString(text)) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
            Some(other) => {
                let kind = type_name(other);
                return Err(Fault::invalid_argument_type(kind, "alternate-exchange", "exchange", name, &vhost.name));
            }
        };
        // What overflows is read from it; of an exchange that exists already, that was allowed to somebody.
        if let Some(alternate) = options.alternate_exchange.as_deref()
            && is_new
            && let Some(session) = sessions.get(id)
        {
            session.authorize(Right::Read, Resource::Exchange(name), &vhost.name)?;
            session.authorize(Right::Write, Resource::Exchange(alternate), &vhost.name)?;
        }
        match vhost.router.declare_exchange(name, options) {
            Ok(Declared::New | Declared::Existing) => Ok(()),
            Err(RoutingError::Inequivalent { field, received, current }) => {
                Err(Fault::inequivalent("exchange", name, &vhost.name, field, &received, &current))
            }
            Err(error) => Err(routing_fault(&error, &vhost.name)),
        }
    }

    fn delete_exchange(&mut self, id: ConnectionId, delete: &Delete) -> Result<(), Fault> {
        let (vhost, _) = self.vhost(id)?;
        let name = delete.exchange.as_str();
        if name.is_empty() {
            return Err(Fault::default_exchange());
        }
        if name.starts_with("amq.") {
            return Err(Fault::system_exchange(name, &vhost.name));
        }
        self.authorize(id, Right::Configure, Resource::Exchange(name))?;
        let (vhost, _) = self.vhost(id)?;
        if delete.if_unused && vhost.router.is_exchange_in_use(name) {
            return Err(Fault::in_use("exchange", name, &vhost.name));
        }
        vhost.router.delete_exchange(name);
        Ok(())
    }

    fn bind_exchange(&mut self, id: ConnectionId, bind: &Bind) -> Result<(), Fault> {
        self.need_memory(&format_args!("bind to exchange '{}'", bind.source))?;
        let destination = Resource::Exchange(bind.destination.as_str());
        self.authorize_binding(id, destination, bind.source.as_str(), bind.routing_key.as_str())?;
        let (vhost, _) = self.vhost(id)?;
        let destination = Destination::Exchange(bind.destination.as_str());
        vhost
            .router
            .bind(bind.source.as_str(), destination, bind.routing_key.as_str(), &bind.arguments)
            .map_err(|error| routing_fault(&error, &vhost.name))
    }

    fn unbind_exchange(&mut self, id: ConnectionId, unbind: &Unbind) -> Result<(), Fault> {
        let destination = Resource::Exchange(unbind.destination.as_str());
        self.authorize_binding(id, destination, unbind.source.as_str(), unbind.routing_key.as_str())?;
        let (vhost, _) = self.vhost(id)?;
        let destination = Destination::Exchange(unbind.destination.as_str());
        vhost
            .router
            .unbind(unbind.source.as_str(), destination, unbind.routing_key.as_str(), &unbind.arguments)
            .map(drop)
            .map_err(|error| routing_fault(&error, &vhost.name))
    }
}

/// The router's refusals in RabbitMQ's words.
pub(super) fn routing_fault(error: &RoutingError, vhost: &str) -> Fault {
    match error {
        RoutingError::NoSuchExchange(name) => Fault::no_exchange(name, vhost),
        RoutingError::DefaultExchange => Fault::default_exchange(),
        other => Fault::precondition(other.to_string()),
    }
}
