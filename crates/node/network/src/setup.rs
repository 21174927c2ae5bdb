//! What all containers of an installation share: the range, its route, the table, forwarding.
//!
//! What always holds: it is made before the first container and by every process anew, from whatever an
//! earlier one left; the range is chosen while no other installation chooses.

use std::net::TcpListener;

use tracing::warn;

use crate::elements::Element;
use crate::error::{Doing, NetworkError};
use crate::firewall::{self, Terms};
use crate::forwarding::{self, Turn};
use crate::netlink::Routes;
use crate::network::{Network, Options, State};
use crate::pool::Pool;
use crate::records::Records;
use crate::resolvers::HostResolvers;
use crate::routing;

/// What was set up once for all containers.
pub(crate) struct Kernel {
    pub routes: Routes,
    pub pool: Pool,
    pub mtu: u32,
    pub terms: Terms,
}

impl Network {
    /// Makes what all containers share, and again where what it depends on has changed.
    pub(crate) fn set_up(&self, state: &mut State) -> Result<(), NetworkError> {
        let installation = &self.0.options.installation;
        let port = |listener: &Option<TcpListener>| match listener {
            Some(listener) => {
                let address = listener.local_addr();
                let address = address.doing(|| "the endpoint for tasks".to_owned())?;
                Ok(Some(address.port()))
            }
            None => Ok(None),
        };
        let endpoint_port = port(&state.listener)?;
        let control_plane_port = port(&state.control_plane)?;
        let loopback_resolver = HostResolvers::read().loopback;
        let terms = |pool| Terms {
            pool,
            endpoint_port,
            control_plane_port,
            loopback_resolver,
        };
        if let Some(kernel) = &mut state.kernel {
            let wanted = terms(kernel.pool);
            if kernel.terms != wanted {
                let elements = all_elements(self, &state.records, wanted.pool);
                firewall::load(installation, &wanted, &elements)?;
                kernel.terms = wanted;
            }
            return Ok(());
        }
        let routes = Routes::open().doing(|| "opening a netlink socket".to_owned())?;
        let mtu =
            routing::mtu_of_the_way_out(&routes).doing(|| "looking for the way out".to_owned())?;
        let turn = Turn::wait()?;
        let pool = self.choose_pool(&mut state.records, &routes)?;
        routing::reserve(&routes, installation, pool)
            .doing(|| format!("reserving the range {pool}"))?;
        self.step();
        let wanted = terms(pool);
        firewall::load(
            installation,
            &wanted,
            &all_elements(self, &state.records, pool),
        )?;
        self.step();
        forwarding::require(&turn, installation, &routes)?;
        self.step();
        drop(turn);
        if forwarding::is_dropped_by_iptables() {
            warn!(
                "iptables drops forwarded packets (policy DROP of FORWARD, as Docker sets it): tasks in bridge mode reach nobody outside until `iptables -I DOCKER-USER -i gv+ -j ACCEPT` and `iptables -I DOCKER-USER -o gv+ -j ACCEPT`, or the same in FORWARD"
            );
        }
        state.kernel = Some(Kernel {
            routes,
            pool,
            mtu,
            terms: wanted,
        });
        Ok(())
    }

    /// The range from before, unless it collides and no container has an address of it yet.
    fn choose_pool(&self, records: &mut Records, routes: &Routes) -> Result<Pool, NetworkError> {
        let Options {
            installation, pool, ..
        } = &self.0.options;
        let known = records.pool;
        if let Some(known) = known.filter(|_| !records.is_empty()) {
            return Ok(known);
        }
        let taken =
            routing::taken_networks(routes, installation).doing(|| "listing routes".to_owned())?;
        let collides = |pool: &Pool| taken.iter().copied().find(|route| pool.overlaps(*route));
        let chosen = match *pool {
            Some(named) => match collides(&named) {
                None => named,
                Some(route) => {
                    return Err(NetworkError::RangeTaken {
                        pool: named.to_string(),
                        route: route.to_string(),
                    });
                }
            },
            None => known
                .filter(|known| collides(known).is_none())
                .or_else(|| Pool::choose(&taken, installation.number()))
                .ok_or(NetworkError::NoFreeRange)?,
        };
        if known != Some(chosen) {
            // A range that was reserved before is no longer ours.
            routing::release(routes, installation).doing(|| "removing routes".to_owned())?;
            records
                .set_pool(chosen)
                .doing(|| "writing down the range of addresses".to_owned())?;
        }
        Ok(chosen)
    }
}

fn all_elements(network: &Network, records: &Records, pool: Pool) -> Vec<Element> {
    let attached = records.all().filter(|record| record.request.is_some());
    attached
        .flat_map(|record| network.elements_of(pool, record))
        .collect()
}
