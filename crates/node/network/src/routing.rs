//! Veth pairs, addresses, neighbours and routes.
//!
//! What always holds: both ends of a pair know each other's hardware address beforehand, so nothing is
//! ever asked by ARP; every address of a container is a /32; the pool as a whole is reserved by an
//! unreachable route, so that an address which nobody has goes nowhere, and others see the range as taken.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::installation::{Installation, ROUTE_PROTOCOL};
use crate::netlink::Routes;
use crate::pool::{Network, Pool};

/// The next hop of every container. It is on no interface: its hardware address is the host end's.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The name of the interface inside.
pub(crate) const INSIDE: &str = "eth0";
/// Locally administered addresses. A pair is a wire of its own, so all host ends may have the same.
const HOST_END: [u8; 6] = [0x02, 0x47, 0, 0, 0, 1];
const MTU: u32 = 1500;

/// A container's, drawn from its IP address.
fn container_end(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// Makes a pair whose far end, `eth0`, is in `namespace` already. Both are down.
pub(crate) fn make_pair(
    routes: &Routes,
    name: &str,
    address: Ipv4Addr,
    mtu: u32,
    namespace: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut inside = LinkMessage::default();
    inside.attributes = vec![
        LinkAttribute::IfName(INSIDE.to_owned()),
        LinkAttribute::Address(container_end(address).to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ];
    let mut host = LinkMessage::default();
    host.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(HOST_END.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inside))),
        ]),
    ];
    routes.tell(vec![(
        RouteNetlinkMessage::NewLink(host),
        NLM_F_CREATE | NLM_F_EXCL,
    )])
}

/// The container's side, through a socket of its namespace.
pub(crate) fn configure_inside(routes: &Routes, address: Ipv4Addr) -> io::Result<()> {
    let index = index(routes, INSIDE)?;
    let mut to_gateway = route(GATEWAY, 32, index);
    to_gateway.header.scope = RouteScope::Link;
    let mut everywhere = route(Ipv4Addr::UNSPECIFIED, 0, index);
    everywhere
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(GATEWAY)));
    let set = NLM_F_CREATE | NLM_F_REPLACE;
    routes.tell(vec![
        (own_address(index, address), set),
        (up(index), 0),
        (neighbour(index, GATEWAY, HOST_END), set),
        (RouteNetlinkMessage::NewRoute(to_gateway), set),
        (RouteNetlinkMessage::NewRoute(everywhere), set),
    ])
}

/// The host's side.
pub(crate) fn configure_host_end(routes: &Routes, name: &str, address: Ipv4Addr) -> io::Result<()> {
    let index = index(routes, name)?;
    let mut to_container = route(address, 32, index);
    to_container.header.scope = RouteScope::Link;
    let set = NLM_F_CREATE | NLM_F_REPLACE;
    routes.tell(vec![
        (up(index), 0),
        (neighbour(index, address, container_end(address)), set),
        (RouteNetlinkMessage::NewRoute(to_container), set),
    ])
}

/// Brings the loopback interface of the socket's namespace up.
pub(crate) fn loopback_up(routes: &Routes) -> io::Result<()> {
    routes.tell(vec![(up(1), 0)])
}

/// Removes a pair, both ends. Gone already is what is wanted.
pub(crate) fn remove_link(routes: &Routes, name: &str) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    match routes.tell(vec![(RouteNetlinkMessage::DelLink(link), 0)]) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {
            Ok(())
        }
        result => result,
    }
}

pub(crate) fn link_exists(routes: &Routes, name: &str) -> bool {
    index(routes, name).is_ok()
}

/// The names of all interfaces.
pub(crate) fn links(routes: &Routes) -> io::Result<Vec<String>> {
    let found = routes.list(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => name_of(&link),
            _ => None,
        })
        .collect())
}

fn name_of(link: &LinkMessage) -> Option<String> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
}

fn index(routes: &Routes, name: &str) -> io::Result<u32> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    match routes.get(RouteNetlinkMessage::GetLink(link))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link.header.index),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The largest packet that the way out takes. A container's must not be larger, since there may be
/// nobody on the way who says so.
pub(crate) fn mtu_of_the_way_out(routes: &Routes) -> io::Result<u32> {
    let way_out = ipv4_routes(routes)?.into_iter().find_map(|route| {
        let is_default =
            route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast;
        route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) if is_default => Some(*index),
                _ => None,
            })
    });
    let Some(index) = way_out else {
        return Ok(MTU);
    };
    let mut link = LinkMessage::default();
    link.header.index = index;
    let mtu = match routes.get(RouteNetlinkMessage::GetLink(link))? {
        RouteNetlinkMessage::NewLink(link) => {
            link.attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                })
        }
        _ => None,
    };
    Ok(mtu.unwrap_or(MTU))
}

/// Every network that this machine has a route to or an address in, apart from the default route and
/// what the installation itself made.
pub(crate) fn taken_networks(
    routes: &Routes,
    installation: &Installation,
) -> io::Result<Vec<Network>> {
    let own_links: Vec<u32> = routes
        .list(RouteNetlinkMessage::GetLink(LinkMessage::default()))?
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => name_of(&link)
                .filter(|name| name.starts_with(&installation.link_prefix()))
                .map(|_| link.header.index),
            _ => None,
        })
        .collect();
    let mut taken = Vec::new();
    for route in ipv4_routes(routes)? {
        let is_own = reserves(&route, installation)
            || route.attributes.iter().any(
                |attribute| matches!(attribute, RouteAttribute::Oif(index) if own_links.contains(index)),
            );
        let prefix = route.header.destination_prefix_length;
        if let Some(address) = destination(&route).filter(|_| !is_own && prefix > 0) {
            taken.push(Network { address, prefix });
        }
    }
    Ok(taken)
}

/// Makes the route that reserves the pool.
pub(crate) fn reserve(routes: &Routes, installation: &Installation, pool: Pool) -> io::Result<()> {
    routes.tell(vec![(
        RouteNetlinkMessage::NewRoute(reservation(installation, pool.network(), pool.prefix())),
        NLM_F_CREATE | NLM_F_REPLACE,
    )])
}

/// Removes every route that reserves a range for the installation, and says how many there were.
pub(crate) fn release(routes: &Routes, installation: &Installation) -> io::Result<usize> {
    let found: Vec<RouteMessage> = ipv4_routes(routes)?
        .into_iter()
        .filter(|route| reserves(route, installation))
        .collect();
    for route in &found {
        let prefix = route.header.destination_prefix_length;
        if let Some(network) = destination(route) {
            routes.tell(vec![(
                RouteNetlinkMessage::DelRoute(reservation(installation, network, prefix)),
                0,
            )])?;
        }
    }
    Ok(found.len())
}

fn reserves(route: &RouteMessage, installation: &Installation) -> bool {
    route.header.kind == RouteType::Unreachable
        && u8::from(route.header.protocol) == ROUTE_PROTOCOL
        && route
            .attributes
            .contains(&RouteAttribute::Priority(installation.number()))
}

fn reservation(installation: &Installation, network: Ipv4Addr, prefix: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = header(prefix, RouteType::Unreachable);
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(network)),
        // The metric says whose it is, also when nothing is left on disk.
        RouteAttribute::Priority(installation.number()),
    ];
    message
}

fn ipv4_routes(routes: &Routes) -> io::Result<Vec<RouteMessage>> {
    let mut all = RouteMessage::default();
    all.header.address_family = AddressFamily::Inet;
    let found = routes.list(RouteNetlinkMessage::GetRoute(all))?;
    Ok(found
        .into_iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        })
        .collect())
}

fn destination(route: &RouteMessage) -> Option<Ipv4Addr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        })
}

fn header(prefix: u8, kind: RouteType) -> RouteHeader {
    RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: prefix,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::from(ROUTE_PROTOCOL),
        kind,
        ..RouteHeader::default()
    }
}

fn route(to: Ipv4Addr, prefix: u8, link: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = header(prefix, RouteType::Unicast);
    if prefix > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::Inet(to)));
    }
    message.attributes.push(RouteAttribute::Oif(link));
    message
}

fn up(link: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn own_address(link: u32, address: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = link;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

fn neighbour(link: u32, address: Ipv4Addr, hardware: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)),
        NeighbourAttribute::LinkLayerAddress(hardware.to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}
