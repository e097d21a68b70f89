//! Both services: the warehouse, and the desk that takes orders and asks the warehouse.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use rpc_core::{
    CallError, Context,
    layer::{Authenticator, Caller, Denied, Request},
};
use rpc_examples::telemetry::print_trace;
use tokio::sync::Mutex;

use crate::contract::{Order, Orders, Placed, Stock, StockClient, StockError};

/// A shelf of so many pieces, and those that were taken out, by order.
#[derive(Default)]
pub struct Shelf {
    pub pieces: u32,
    pub taken: Mutex<HashMap<String, u32>>,
}

impl Stock for Shelf {
    async fn take(&self, order: String, article: String, pieces: u32, ctx: &Context) -> Result<u32, StockError> {
        print_trace("stock");
        // An injected fault: a rare article is never found at the first attempt.
        if article == "rare" && ctx.attempt() == 1 {
            return Err(StockError::Busy);
        }
        let mut taken = self.taken.lock().await;
        let left = self.pieces - taken.values().sum::<u32>();
        if taken.contains_key(&order) {
            return Ok(left);
        }
        let left = left.checked_sub(pieces).ok_or(StockError::TooFew { left })?;
        taken.insert(order, pieces);
        Ok(left)
    }
}

/// Takes orders.
pub struct Desk {
    pub stock: StockClient,
    pub store: Mutex<HashMap<String, Placed>>,
}

impl Orders for Desk {
    async fn place(&self, Order { id, article, pieces }: Order, ctx: &Context) -> Result<Placed, StockError> {
        print_trace("orders");
        let customer = ctx.extensions().get::<Caller>().map_or("nobody", Caller::name).to_owned();
        let left = self.stock.take(id.clone(), article, pieces).await.map_err(CallError::into_service)?;
        // As a database may.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let placed = Placed { customer, left };
        self.store.lock().await.insert(id, placed.clone());
        Ok(placed)
    }
}

/// The one place where tokens are checked.
pub struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    type Identity = Caller;

    async fn authenticate(&self, token: &str, _: &Request) -> Result<Caller, Denied> {
        token.strip_prefix("of ").map(Caller::new).ok_or_else(|| Denied::unauthenticated("the token is unknown"))
    }

    fn caller(&self, customer: &Caller) -> Caller {
        customer.clone()
    }
}

#[cfg(test)]
mod tests {
    use rpc_core::{RetryPolicy, layer::RetryLayer};

    use super::*;

    #[tokio::test]
    async fn an_order_is_stored_once_the_warehouse_has_given_its_pieces() {
        let stock = StockClient::fake(Shelf { pieces: 10, ..Shelf::default() });
        let stock = stock.layer(RetryLayer::new(RetryPolicy::default()));
        let desk = Desk { stock, store: Mutex::default() };
        let ctx = Context::for_test().extension(Caller::new("ada")).build();
        for (article, pieces, left) in
            [("nut", 11, None), ("nut", 2, Some(8)), ("nut", 2, Some(8)), ("rare", 3, Some(5))]
        {
            let order = Order { id: article.to_owned(), article: article.to_owned(), pieces };
            let placed = desk.place(order, &ctx).await.map(|placed| (placed.customer, placed.left));
            assert_eq!(placed, left.map(|left| ("ada".to_owned(), left)).ok_or(StockError::TooFew { left: 10 }));
            assert_eq!(desk.store.lock().await.contains_key(article), left.is_some());
        }
    }
}
