//! Requests of an address in a second: a bucket each, of which only so many are kept.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Most addresses that are remembered. When there are more, those are forgotten that have been quiet for a second; when
/// there are none, everybody begins anew.
const ADDRESSES: usize = 10_000;

/// The requests of all addresses.
#[derive(Debug)]
pub struct Rates {
    /// Requests in a second, and in a burst; 0 for no limit.
    most: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// `most` requests a second; 0 for no limit.
    pub fn new(most: u64) -> Self {
        Self { most: most as f64, buckets: Mutex::default() }
    }

    /// Takes one request of an address; false when it has none left.
    pub fn take(&self, from: IpAddr, now: Instant) -> bool {
        if self.most == 0.0 {
            return true;
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= ADDRESSES {
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs() < 1);
            if buckets.len() >= ADDRESSES {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(network(from)).or_insert(Bucket { left: self.most, at: now });
        let refilled = now.saturating_duration_since(bucket.at).as_secs_f64() * self.most;
        bucket.left = (bucket.left + refilled).min(self.most);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

/// Who has one IPv6 address has all of its network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_address_has_its_requests_and_gets_them_back() {
        let rates = Rates::new(10);
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let taken = |from, at| (0..20).filter(|_| rates.take(from, at)).count();
        assert_eq!((taken(one, start), taken(other, start)), (10, 10));
        assert_eq!(taken(one, start + Duration::from_millis(500)), 5);
        assert_eq!(taken(one, start + Duration::from_secs(60)), 10);
        assert_eq!((0..1000).filter(|_| Rates::new(0).take(one, start)).count(), 1000);
    }

    #[test]
    fn addresses_of_one_network_share_and_no_more_are_kept_than_there_is_room_for() {
        let rates = Rates::new(1);
        let now = Instant::now();
        assert!(rates.take("2001:db8::1".parse().unwrap(), now));
        assert!(!rates.take("2001:db8::2".parse().unwrap(), now));
        assert!(rates.take("::ffff:192.0.2.1".parse().unwrap(), now));
        assert!(!rates.take("192.0.2.1".parse().unwrap(), now));
        for n in 0..30_000_u32 {
            rates.take(std::net::Ipv4Addr::from(n).into(), now);
        }
        assert!(rates.buckets.lock().unwrap().len() <= ADDRESSES);
    }
}
