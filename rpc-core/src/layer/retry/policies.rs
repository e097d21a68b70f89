//! Which policy a call has: its own, its method's, or that of the layer.

use std::sync::Arc;

use super::policy::RetryPolicy;
use crate::layer::{extensions::Extensions, request::Request};

/// The policies of a layer.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) default: Option<Arc<RetryPolicy>>,
    /// Few: only those of methods that are to be exceptions.
    methods: Vec<(String, Arc<RetryPolicy>)>,
}

/// In the extensions of a request: the policy of this call alone.
#[derive(Debug)]
pub(crate) struct OfCall(pub(crate) Arc<RetryPolicy>);

impl From<OfCall> for Extensions {
    fn from(policy: OfCall) -> Self {
        let mut extensions = Self::default();
        extensions.insert(policy);
        extensions
    }
}

/// In the extensions of a request: an outer layer sends it again already.
struct Governed;

impl Policies {
    /// The policy of a method, `service.method`.
    pub(super) fn set(&mut self, method: String, policy: RetryPolicy) {
        self.methods.retain(|(known, _)| *known != method);
        self.methods.push((method, Arc::new(policy)));
    }

    pub(super) fn has_any(&self) -> bool {
        self.default.is_some() || !self.methods.is_empty()
    }

    /// The policy for this request, if it has one and no layer further out has applied it.
    pub(super) fn find(&self, request: &Request) -> Option<Arc<RetryPolicy>> {
        if request.extensions().get::<Governed>().is_some() {
            return None;
        }
        let of_call = request.extensions().get::<OfCall>().map(|policy| Arc::clone(&policy.0));
        of_call.or_else(|| self.of_method(request)).or_else(|| self.default.clone())
    }

    /// The same. From now on layers further in leave the request alone: attempts would multiply.
    pub(super) fn claim(&self, request: &mut Request) -> Option<Arc<RetryPolicy>> {
        let policy = self.find(request)?;
        request.extensions_mut().insert(Governed);
        Some(policy)
    }

    fn of_method(&self, request: &Request) -> Option<Arc<RetryPolicy>> {
        let (service, method) = (request.service(), request.method());
        let is_it = |name: &str| name.strip_prefix(service).and_then(|rest| rest.strip_prefix('.')) == Some(method);
        self.methods.iter().find(|(name, _)| is_it(name)).map(|(_, policy)| Arc::clone(policy))
    }
}
