//! The links to the other members, made on demand and shared by all who ask.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use service::tasks::Tasks;

use super::network::handshake::Trust;
use super::network::link::Link;

pub struct Peers {
    trust: Arc<Trust>,
    tasks: Tasks,
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

impl Peers {
    pub fn new(trust: Arc<Trust>, tasks: Tasks) -> Self {
        Self {
            trust,
            tasks,
            links: Mutex::new(HashMap::new()),
        }
    }

    /// The link to a member; a new one when its address has changed.
    pub fn link(&self, id: u64, address: &str) -> Arc<Link> {
        let mut links = self.links.lock().expect("no holder of the links panics");
        if let Some(link) = links.get(&id).filter(|link| link.address() == address) {
            return Arc::clone(link);
        }
        let link = Arc::new(Link::new(
            Arc::clone(&self.trust),
            self.tasks.clone(),
            id,
            address.to_owned(),
        ));
        links.insert(id, Arc::clone(&link));
        link
    }

    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }
}
