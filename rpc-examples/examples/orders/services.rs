//! Both services: the warehouse, and the desk that takes orders and asks the warehouse.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rpc_core::{
    Context,
    layer::{Authenticator, Caller, Denied, Request},
};

use crate::{
    contract::{Order, Orders, Placed, Stock, StockError},
    telemetry,
};

/// A shelf. A rare article has to be looked for: it is busy at the first request for each order.
#[derive(Debug)]
pub struct Shelf(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    left: u32,
    looked_for: HashSet<String>,
    /// By order, the pieces that were left after it.
    given: HashMap<String, u32>,
}

impl Shelf {
    pub fn new(left: u32) -> Self {
        Self(Mutex::new(Pieces { left, ..Pieces::default() }))
    }
}

impl Stock for Shelf {
    async fn take(&self, order: String, article: String, pieces: u32) -> Result<u32, StockError> {
        telemetry::print_trace("stock");
        let mut state = lock(&self.0);
        if article == "rare" && state.looked_for.insert(order.clone()) {
            return Err(StockError::Busy);
        }
        if let Some(left) = state.given.get(&order) {
            return Ok(*left);
        }
        let left = state.left.checked_sub(pieces).ok_or(StockError::TooFew { left: state.left })?;
        state.left = left;
        state.given.insert(order, left);
        Ok(left)
    }
}

/// Takes orders. Anything that is a `Stock` can stand behind it: a client, or the fake of a test.
#[derive(Debug)]
pub struct Desk<S> {
    stock: S,
    store: Mutex<HashMap<String, Placed>>,
}

impl<S> Desk<S> {
    pub fn new(stock: S) -> Self {
        Self { stock, store: Mutex::default() }
    }
}

impl<S: Stock> Orders for Desk<S> {
    async fn place(&self, Order { id, article, pieces }: Order, ctx: &Context) -> Result<Placed, StockError> {
        telemetry::print_trace("orders");
        let customer = ctx.extensions().get::<Customer>().map_or_else(String::new, |customer| customer.0.clone());
        let left = self.stock.take(id.clone(), article, pieces).await?;
        // As a database may.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let placed = Placed { id: id.clone(), customer, left };
        lock(&self.store).insert(id, placed.clone());
        Ok(placed)
    }
}

/// The one whose token came with a request. It is checked here, and nowhere else.
pub struct Customer(String);

pub struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    type Identity = Customer;

    async fn authenticate(&self, token: &str, _: &Request) -> Result<Customer, Denied> {
        match token.strip_prefix("of ") {
            Some(name) => Ok(Customer(name.to_owned())),
            None => Err(Denied::unauthenticated("the token is unknown")),
        }
    }

    fn caller(&self, customer: &Customer) -> Caller {
        Caller::new(&*customer.0)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Result<u32, StockError>);

    impl Stock for Fake {
        async fn take(&self, _order: String, _article: String, _pieces: u32) -> Result<u32, StockError> {
            self.0.clone()
        }
    }

    #[tokio::test]
    async fn an_order_is_stored_once_the_warehouse_has_given_its_pieces() {
        for taken in [Ok(5), Err(StockError::TooFew { left: 1 })] {
            let desk = Desk::new(Fake(taken.clone()));
            let order = Order { id: "7".to_owned(), article: "nut".to_owned(), pieces: 2 };
            let placed = desk.place(order, &Context::for_test().build()).await;
            assert_eq!(placed.map(|placed| placed.left), taken);
            assert_eq!(lock(&desk.store).contains_key("7"), taken.is_ok());
        }
    }

    #[tokio::test]
    async fn an_order_that_is_asked_for_twice_takes_its_pieces_once() {
        let shelf = Shelf::new(10);
        for _ in 0..2 {
            assert_eq!(shelf.take("7".to_owned(), "nut".to_owned(), 2).await, Ok(8));
        }
    }
}
