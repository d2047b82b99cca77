//! Which servers may be dialled: the rules of `pull_allow` and `pull_deny`, and whether one fits a server.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::value::{self, InvalidValue, Parsed};

/// What a rule may be.
const RULE: &str = "up to 256 rules with commas between them, each a host (h.example.org), all hosts below one \
    (*.example.org), an address or network (10.0.0.0/8, fe80::/10) or *, with or without a scheme (rtsp://*.example.org)";
/// Most rules of a list.
const MAX_RULES: usize = 256;
/// What can be dialled.
const SCHEMES: [&str; 6] = ["rtmp", "rtmps", "rtsp", "rtsps", "ws", "wss"];

/// A rule: servers, and optionally the scheme they are dialled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRule {
    scheme: Option<String>,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Anywhere,
    /// In lower case.
    Host(String),
    /// All hosts below one, in lower case with its leading dot.
    Below(String),
    Network(IpNet),
}

impl FromStr for TargetRule {
    type Err = InvalidValue;

    /// Reads a rule; the case of letters does not matter.
    ///
    /// # Errors
    /// What is allowed.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let text = text.trim().to_ascii_lowercase();
        let (scheme, place) = match text.split_once("://") {
            Some((scheme, place)) => (Some(scheme.to_owned()), place),
            None => (None, text.as_str()),
        };
        if scheme.as_ref().is_some_and(|scheme| !SCHEMES.contains(&scheme.as_str())) {
            return value::expected(RULE);
        }
        Ok(Self { scheme, place: place.parse()? })
    }
}

impl FromStr for Place {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(network) = bare.parse::<IpNet>() {
            return Ok(Self::Network(plain(network).trunc()));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        let (below, host) = match text.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, text),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let letters = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        // A spelling of an address, which hosts are not compared with: addresses are.
        let number = |c: char| c.is_ascii_hexdigit() || c == '.' || c == 'x';
        let numeric = host.starts_with(|c: char| c.is_ascii_digit()) && host.chars().all(number);
        match (text, below) {
            ("*", _) => Ok(Self::Anywhere),
            _ if host.is_empty() || host.starts_with('.') || numeric || !host.chars().all(letters) => {
                value::expected(RULE)
            }
            (_, true) => Ok(Self::Below(format!(".{host}"))),
            (_, false) => Ok(Self::Host(host.to_owned())),
        }
    }
}

/// An IPv4 network that is written as part of IPv6 is one of IPv4: addresses are compared in that form.
fn plain(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(six) => six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

impl fmt::Display for TargetRule {
    /// Writes the rule as the setting is written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.place {
            Place::Anywhere => f.write_str("*"),
            Place::Host(host) => f.write_str(host),
            Place::Below(host) => write!(f, "*{host}"),
            Place::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                write!(f, "{}", network.addr())
            }
            Place::Network(network) => write!(f, "{network}"),
        }
    }
}

impl TargetRule {
    /// Whether the rule is about this server by its name: `host` as it is written in an address.
    pub fn fits_host(&self, scheme: &str, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.fits_scheme(scheme)
            && match &self.place {
                Place::Anywhere => true,
                Place::Host(own) => *own == host,
                Place::Below(end) => host.ends_with(end) && host.len() > end.len(),
                Place::Network(_) => false,
            }
    }

    /// Whether the rule is about a server at this address.
    pub fn fits_address(&self, scheme: &str, address: IpAddr) -> bool {
        match &self.place {
            Place::Network(network) => self.fits_scheme(scheme) && network.contains(&address.to_canonical()),
            _ => false,
        }
    }

    /// The same, whatever way to that address it is: one that leads to an IPv4 address is that too.
    pub fn fits_any_form(&self, scheme: &str, address: IpAddr) -> bool {
        forms(address).into_iter().flatten().any(|form| self.fits_address(scheme, form))
    }

    fn fits_scheme(&self, scheme: &str) -> bool {
        self.scheme.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(scheme))
    }
}

/// An address, and what else it reaches: the IPv4 address inside an IPv6 one, and this host for "unspecified".
fn forms(address: IpAddr) -> [Option<IpAddr>; 2] {
    let address = address.to_canonical();
    let other = match address {
        IpAddr::V4(ip) => ip.is_unspecified().then_some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => Some(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V6(ip) => embedded(ip).map(IpAddr::V4),
    };
    [Some(address), other]
}

/// NAT64 (RFC 6052), 6to4 (RFC 3056), and the old "IPv4-compatible" form (RFC 4291, 2.5.5.1).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let four = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(four(high, low)),
        [0x2002, high, low, ..] => Some(four(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(four(high, low)),
        _ => None,
    }
}

/// Rules with commas between them; nothing is no rule.
pub(super) fn rules(text: &str) -> Parsed<Vec<TargetRule>> {
    let rules: Vec<&str> = text.split(',').map(str::trim).filter(|rule| !rule.is_empty()).collect();
    if rules.len() > MAX_RULES {
        return value::expected(RULE);
    }
    rules.into_iter().map(str::parse).collect()
}

/// Writes rules so that [`rules`] reads them back.
pub(super) fn show(rules: &[TargetRule]) -> String {
    rules.iter().map(TargetRule::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> TargetRule {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn rules_are_read_and_written() {
        for (text, written) in [
            ("*", "*"),
            ("RTSP://*", "rtsp://*"),
            ("Cam.Example.org.", "cam.example.org"),
            ("*.example.org", "*.example.org"),
            ("rtmps://h", "rtmps://h"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("[fe80::]/10", ""),
            ("fe80::/10", "fe80::/10"),
            ("ws://[fd00::1]", "ws://fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("7cams.example", "7cams.example"),
            ("", ""),
            ("http://*", ""),
            ("*.", ""),
            ("a b", ""),
            ("10.0.0", ""),
            ("0x7f000001", ""),
            ("2130706433", ""),
            ("10.0.0.0/33", ""),
            ("h:554", ""),
            ("h/live", ""),
        ] {
            let read = text.parse::<TargetRule>().map(|rule| rule.to_string()).unwrap_or_default();
            assert_eq!(read, written, "{text:?}");
        }
        assert_eq!(rules("").unwrap(), []);
        assert_eq!(show(&rules(" h, *.g ,").unwrap()), "h,*.g");
        assert!(rules(&"h,".repeat(257)).is_err());
    }

    #[test]
    fn rules_fit_hosts_by_name() {
        for (text, scheme, host, fits) in [
            ("*", "ws", "anything", true),
            ("rtsp://*", "rtsp", "h", true),
            ("rtsp://*", "rtmp", "h", false),
            ("h.example", "rtmp", "H.Example.", true),
            ("h.example", "rtmp", "xh.example", false),
            ("*.example", "rtmp", "a.b.example", true),
            ("*.example", "rtmp", "example", false),
            ("*.example", "rtmp", "badexample", false),
            ("127.0.0.1", "rtmp", "127.0.0.1", false),
        ] {
            assert_eq!(rule(text).fits_host(scheme, host), fits, "{text} {host}");
        }
    }

    #[test]
    fn every_way_to_an_address_is_that_address() {
        let metadata = rule("169.254.0.0/16");
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
        ] {
            assert!(metadata.fits_any_form("rtmp", ip(address)), "{address}");
        }
        for address in ["169.255.0.1", "::", "::1", "fe80::a9fe:a9fe", "2001:db8::a9fe:a9fe"] {
            assert!(!metadata.fits_any_form("rtmp", ip(address)), "{address}");
        }
        assert!(rule("127.0.0.0/8").fits_any_form("rtmp", ip("0.0.0.0")));
        assert!(rule("::1").fits_any_form("rtmp", ip("::")));
        // What is allowed is allowed as it is.
        assert!(!metadata.fits_address("rtmp", ip("64:ff9b::a9fe:a9fe")));
    }

    proptest! {
        #[test]
        fn a_network_has_its_addresses_in_every_form(bits in any::<u32>(), length in 1u8..=32, other in any::<u32>()) {
            let network = format!("{}/{length}", Ipv4Addr::from(bits));
            let mask = u32::MAX << (32 - length);
            let inside = bits & mask == other & mask;
            let address = Ipv4Addr::from(other);
            prop_assume!(!address.is_unspecified());
            let rule = rule(&network);
            for form in [IpAddr::V4(address), IpAddr::V6(address.to_ipv6_mapped())] {
                prop_assert_eq!(rule.fits_address("rtsp", form), inside, "{} {}", network, form);
            }
            let [a, b] = [(other >> 16) as u16, other as u16];
            let nat64 = IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b));
            prop_assert_eq!(rule.fits_any_form("rtsp", nat64), inside);
            prop_assert_eq!(TargetRule::from_str(&rule.to_string()).unwrap(), rule);
        }

        #[test]
        fn a_host_is_found_whatever_its_case(host in "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9]{0,5}){0,3}", dot in "\\.?") {
            let written = format!("{}{dot}", host.to_uppercase());
            prop_assert!(rule(&host).fits_host("rtmp", &written));
            let below = format!("*.{host}");
            let under = format!("sub.{written}");
            prop_assert!(rule(&below).fits_host("rtmp", &under));
            prop_assert!(!rule(&below).fits_host("rtmp", &written));
        }

        #[test]
        fn no_rule_makes_it_panic(text in "\\PC{0,60}", host in "\\PC{0,30}") {
            if let Ok(rule) = text.parse::<TargetRule>() {
                let _ = rule.fits_host("rtsp", &host);
                prop_assert_eq!(rule.to_string().parse::<TargetRule>().unwrap(), rule);
            }
        }
    }
}
