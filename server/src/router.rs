//! Finds the gRPC service that a path names, without a web framework in front.
//!
//! A gRPC path is `/package.Service/Method`; the service part is compared with a short list in the order it was
//! built, so put the hot services first. The method is matched by the generated server itself. An unknown service gets
//! gRPC's own answer, UNIMPLEMENTED in the headers ("trailers-only").
//! Never does: decisions about callers, bodies, or anything that waits.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tower::Service;

type Request = http::Request<Incoming>;
type Response = http::Response<Body>;
type Answer = BoxFuture<Response, Infallible>;

/// The services of one worker. Clones share them.
#[derive(Clone, Default)]
pub struct Router {
    routes: Arc<Vec<Route>>,
}

/// Collects the services of a [`Router`].
#[derive(Default)]
pub struct RouterBuilder {
    routes: Vec<Route>,
}

struct Route {
    name: &'static str,
    serve: Box<dyn Fn(Request) -> Answer + Send + Sync>,
}

impl Router {
    /// A router without services.
    #[must_use]
    pub fn builder() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// The names it knows, in order; for reflection and the log.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.routes.iter().map(|route| route.name)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.names()).finish()
    }
}

impl std::fmt::Debug for RouterBuilder {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.routes.iter().map(|route| route.name)).finish()
    }
}

impl RouterBuilder {
    /// Adds a generated server under its own name. It must be ready at all times, as generated servers are; set
    /// `max_decoding_message_size(limits::GRPC_MESSAGE_BYTES_MAX)` on it.
    #[must_use]
    pub fn service<S>(mut self, service: S) -> Self
    where
        S: NamedService
            + Service<Request, Response = Response, Error = Infallible, Future = Answer>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        // Cloning a generated server raises one reference count; `call` needs it mutable.
        let serve = Box::new(move |request| service.clone().call(request));
        self.routes.push(Route { name: S::NAME, serve });
        self
    }

    /// The router.
    #[must_use]
    pub fn build(self) -> Router {
        Router { routes: Arc::new(self.routes) }
    }
}

impl Service<Request> for Router {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Answer {
        let name = service_name(request.uri().path());
        match self.routes.iter().find(|route| Some(route.name) == name) {
            Some(route) => (route.serve)(request),
            None => Box::pin(std::future::ready(Ok(Status::unimplemented("no such service").into_http()))),
        }
    }
}

/// `/package.Service/Method` to `package.Service`.
fn service_name(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split_once('/').map(|(service, _)| service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_with_service_and_method_names_a_service() {
        assert_eq!(service_name("/cardea.v1.DecisionService/Decide"), Some("cardea.v1.DecisionService"));
        assert_eq!(service_name("/cardea.v1.DecisionService"), None);
        assert_eq!(service_name("*"), None);
        assert_eq!(service_name("//Decide"), Some(""));
    }
}
