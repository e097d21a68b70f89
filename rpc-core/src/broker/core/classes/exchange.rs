//! The exchange class.

use amq_protocol::{
    protocol::{
        AMQPClass,
        exchange::{AMQPMethod, Bind, BindOk, Declare, DeclareOk, Delete, DeleteOk, Unbind, UnbindOk},
    },
    types::AMQPValue,
};

use crate::{
    broker::core::{
        context::Context,
        fault::Fault,
        names::drop_line_breaks,
        session::access::{Resource, Right},
        unfinished::Deletion,
        vhost::field_values::type_name,
    },
    routing::{Declared, Destination, ExchangeKind, ExchangeOptions, RoutingError},
};

/// Handles a method of this class.
pub(crate) fn method(context: &mut Context<'_>, mut method: AMQPMethod) -> Result<(), Fault> {
    clean_names(&mut method);
    let answer = call(context, method);
    context.vhost.count_topology();
    if let Some(answer) = answer? {
        context.send(&AMQPClass::Exchange(answer));
    }
    Ok(())
}

fn clean_names(method: &mut AMQPMethod) {
    match method {
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
}

/// Executes a method. Returns its answer, unless the client wants none or is sent it otherwise.
fn call(context: &mut Context<'_>, method: AMQPMethod) -> Result<Option<AMQPMethod>, Fault> {
    let (nowait, ok) = match method {
        AMQPMethod::Declare(declare) => {
            self::declare(context, &declare)?;
            (declare.nowait, AMQPMethod::DeclareOk(DeclareOk {}))
        }
        AMQPMethod::Delete(delete) => {
            self::delete(context, &delete)?;
            return sweep(context, delete.nowait, AMQPMethod::DeleteOk(DeleteOk {}));
        }
        AMQPMethod::Bind(bind) => {
            self::bind(context, &bind)?;
            (bind.nowait, AMQPMethod::BindOk(BindOk {}))
        }
        AMQPMethod::Unbind(unbind) => {
            self::unbind(context, &unbind)?;
            return sweep(context, unbind.nowait, AMQPMethod::UnbindOk(UnbindOk {}));
        }
        _ => return Err(Fault::unimplemented_method()),
    };
    Ok((!nowait).then_some(ok))
}

/// Removes the bindings and exchanges that were deleted, and then sends the answer.
fn sweep(context: &mut Context<'_>, nowait: bool, ok: AMQPMethod) -> Result<Option<AMQPMethod>, Fault> {
    let answer = (!nowait).then_some(AMQPClass::Exchange(ok));
    context.begin(Deletion { answer, consumers: None })?;
    Ok(None)
}

fn declare(context: &mut Context<'_>, declare: &Declare) -> Result<(), Fault> {
    let name = declare.exchange.as_str();
    if name.is_empty() {
        return Err(Fault::default_exchange());
    }
    let is_new = context.vhost.router.exchange(name).is_none();
    if declare.passive {
        context.session().authorize_passive(Resource::Exchange(name), &context.vhost.name)?;
        return if is_new { Err(Fault::no_exchange(name, &context.vhost.name)) } else { Ok(()) };
    }
    let kind = declare.kind.as_str();
    let Some(kind) = ExchangeKind::from_name(kind) else {
        return Err(Fault::unknown_exchange_type(kind, !context.vhost.facts.unknown_exchange_type_is_soft));
    };
    context.authorize(Right::Configure, Resource::Exchange(name))?;
    if is_new {
        check_new(context, name)?;
    }
    let options = options(declare, kind, &context.vhost.name)?;
    // Overflowing messages are read from the new exchange and written to its alternate. RabbitMQ does not ask again for
    // an exchange that exists.
    if let Some(alternate) = options.alternate_exchange.as_deref().filter(|_| is_new) {
        context.authorize(Right::Read, Resource::Exchange(name))?;
        context.authorize(Right::Write, Resource::Exchange(alternate))?;
    }
    let vhost = &mut *context.vhost;
    match vhost.router.declare_exchange(name, options) {
        Ok(Declared::New | Declared::Existing) => Ok(()),
        Err(RoutingError::Inequivalent { field, received, current }) => {
            Err(Fault::inequivalent("exchange", name, &vhost.name, field, &received, &current))
        }
        Err(error) => Err(routing_fault(&error, &vhost.name)),
    }
}

/// Refuses a new exchange with a reserved name, or beyond memory or the limit.
fn check_new(context: &Context<'_>, name: &str) -> Result<(), Fault> {
    if name.starts_with("amq.") {
        return Err(Fault::reserved_name("exchange", name));
    }
    context.globals.memory.refuse_if_exhausted(&format_args!("declare exchange '{name}'"))?;
    let exchanges_max = context.vhost.limits.exchanges_max;
    if context.vhost.router.exchange_count() >= exchanges_max {
        return Err(Fault::limit_reached("exchange", name, &context.vhost.name, exchanges_max));
    }
    Ok(())
}

fn options(declare: &Declare, kind: ExchangeKind, vhost: &str) -> Result<ExchangeOptions, Fault> {
    let mut options = ExchangeOptions::new(kind);
    options.durable = declare.durable;
    options.auto_delete = declare.auto_delete;
    options.internal = declare.internal;
    options.arguments = declare.arguments.clone();
    options.alternate_exchange = match declare.arguments.inner().get("alternate-exchange") {
        None => None,
        Some(AMQPValue::LongString(text)) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        Some(other) => {
            let (kind, name) = (type_name(other), declare.exchange.as_str());
            return Err(Fault::invalid_argument_type(kind, "alternate-exchange", "exchange", name, vhost));
        }
    };
    Ok(options)
}

fn delete(context: &mut Context<'_>, delete: &Delete) -> Result<(), Fault> {
    let name = delete.exchange.as_str();
    if name.is_empty() {
        return Err(Fault::default_exchange());
    }
    if name.starts_with("amq.") {
        return Err(Fault::system_exchange(name, &context.vhost.name));
    }
    context.authorize(Right::Configure, Resource::Exchange(name))?;
    let vhost = &mut *context.vhost;
    if delete.if_unused && vhost.router.is_exchange_in_use(name) {
        return Err(Fault::in_use("exchange", name, &vhost.name));
    }
    vhost.router.begin_delete_exchange(name);
    Ok(())
}

fn bind(context: &mut Context<'_>, bind: &Bind) -> Result<(), Fault> {
    let (source, destination) = (bind.source.as_str(), bind.destination.as_str());
    context.globals.memory.refuse_if_exhausted(&format_args!("bind to exchange '{source}'"))?;
    context.note_binding(destination, source, bind.routing_key.as_str());
    context.authorize_binding(Resource::Exchange(destination), source, bind.routing_key.as_str())?;
    let vhost = &mut *context.vhost;
    vhost
        .router
        .bind(source, Destination::Exchange(destination), bind.routing_key.as_str(), &bind.arguments)
        .map_err(|error| routing_fault(&error, &vhost.name))
}

fn unbind(context: &mut Context<'_>, unbind: &Unbind) -> Result<(), Fault> {
    let (source, destination) = (unbind.source.as_str(), unbind.destination.as_str());
    context.authorize_binding(Resource::Exchange(destination), source, unbind.routing_key.as_str())?;
    let vhost = &mut *context.vhost;
    vhost
        .router
        .begin_unbind(source, Destination::Exchange(destination), unbind.routing_key.as_str(), &unbind.arguments)
        .map_err(|error| routing_fault(&error, &vhost.name))
}

/// A refusal of the router, in RabbitMQ's words.
pub(crate) fn routing_fault(error: &RoutingError, vhost: &str) -> Fault {
    match error {
        RoutingError::NoSuchExchange(name) => Fault::no_exchange(name, vhost),
        RoutingError::DefaultExchange => Fault::default_exchange(),
        other => Fault::precondition(other.to_string()),
    }
}
