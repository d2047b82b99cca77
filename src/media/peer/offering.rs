//! A peer that makes the offer: what a pull from another WCS server receives with, and a push to one sends with.
//!
//! webrtcbin writes an offer for the transceivers it has: one is added for each track before, with every codec that may be
//! chosen in its caps. The offer leaves with all candidates in it, and is polished: what webrtcbin 1.22 writes otherwise
//! than the browsers' SDK is made like it, as servers are built for that.

use super::*;

/// The longest answer that is read, bytes. A server's has 2,000 to 6,000.
const MAX_ANSWER: usize = 64 << 10;
/// Most candidates of an answer: each is a check, and a name a query to the resolver.
const MAX_CANDIDATES: usize = 64;

/// A payload type as an offer lists it.
pub(super) struct Format {
    pub(super) codec: Codec,
    payload: u8,
    clock_rate: u32,
    parameters: &'static [(&'static str, &'static str)],
}

/// What is offered to receive, in the SDK's numbers and form. H.264 comes before VP8: a server that has both need not
/// transcode for what is recorded and passed on here.
pub(super) static SOUND: [Format; 3] = [
    Format {
        codec: Codec::Opus,
        payload: 111,
        clock_rate: 48_000,
        parameters: &[("minptime", "10"), ("useinbandfec", "1")],
    },
    Format { codec: Codec::Pcmu, payload: 0, clock_rate: 8_000, parameters: &[] },
    Format { codec: Codec::Pcma, payload: 8, clock_rate: 8_000, parameters: &[] },
];
pub(super) static PICTURES: [Format; 4] = [
    h264(108, "42e01f"),
    h264(102, "42001f"),
    h264(116, "4d001f"),
    Format { codec: Codec::Vp8, payload: 96, clock_rate: 90_000, parameters: &[] },
];

/// One of RFC 6184's profiles. The parameters are a table by value: a constant cannot borrow what it makes.
const fn h264(payload: u8, profile: &'static str) -> Format {
    let parameters: &'static [(&str, &str)] = match profile.as_bytes() {
        b"42e01f" => &[("level-asymmetry-allowed", "1"), ("packetization-mode", "1"), ("profile-level-id", "42e01f")],
        b"4d001f" => &[("level-asymmetry-allowed", "1"), ("packetization-mode", "1"), ("profile-level-id", "4d001f")],
        _ => &[("level-asymmetry-allowed", "1"), ("packetization-mode", "1"), ("profile-level-id", "42001f")],
    };
    Format { codec: Codec::H264, payload, clock_rate: 90_000, parameters }
}

impl Peer {
    /// Starts a peer that wants to receive tracks of `kinds`, and gives its offer.
    ///
    /// # Errors
    /// See [`MediaError`].
    pub async fn offer_to_receive(
        pipelines: &Pipelines,
        launch: Launch,
        stream: &StreamName,
        fanout: &Fanout,
        kinds: &[Kind],
        options: &PeerOptions,
    ) -> Result<(Self, String), MediaError> {
        let accept: Accept = Arc::new(|_| Ok(()));
        let peer = Self::start(pipelines, launch, Parse::Head, stream, Some((fanout, accept)), options).await?;
        identity::show(&peer.bin);
        // Sound first, as the SDK has it.
        let sound = kinds.contains(&Kind::Audio).then_some((Kind::Audio, &SOUND[..]));
        let pictures = kinds.contains(&Kind::Video).then_some((Kind::Video, &PICTURES[..]));
        let wanted: Vec<_> = [sound, pictures].into_iter().flatten().collect();
        let bin = peer.bin.clone();
        let add = move || wanted.into_iter().for_each(|(kind, formats)| want(&bin, kind, formats));
        blocking(&peer.template(), "preparing the offer", add).await?;
        let offer = peer.offer().await?;
        Ok((peer, offer))
    }

    /// Takes the remote server's answer; gives the kinds of tracks it agrees to, in the offer's order.
    ///
    /// # Errors
    /// See [`MediaError`]; an answer that is none, or does not fit the offer, is one too.
    pub async fn take_answer(&mut self, answer: &str) -> Result<Agreed, MediaError> {
        let template = self.template();
        let refused = |reason: &str| unusable("answer", reason);
        let offered = self.bin.property::<Option<gst_webrtc::WebRTCSessionDescription>>("local-description");
        let offered = offered.ok_or_else(|| refused("nothing was offered"))?;
        let sdp = read_answer(answer, offered.sdp()).map_err(refused)?;
        let agreed = Agreed::read(&sdp).ok_or_else(|| refused("it has no SHA-256 fingerprint"))?;
        self.one_clock.store(clock::is_one(&sdp), Relaxed);
        let bin = self.bin.clone();
        let answer = gst_webrtc::WebRTCSessionDescription::new(gst_webrtc::WebRTCSDPType::Answer, sdp);
        let set = blocking(&template, "setting the answer", move || {
            let (promise, done) = promised();
            bin.emit_by_name::<()>("set-remote-description", &[&answer, &promise]);
            done
        });
        let set = timeout(TRANSITION, set.await?).await;
        set.map_err(|_| refused("it takes too long"))?
            .map_err(|_| refused("no reply"))?
            .map_err(|reason| refused(&reason))?;
        tune_sessions(&self.bin);
        Ok(agreed)
    }

    fn template(&self) -> String {
        self.pipeline.entry.launch.template.clone()
    }

    /// The offer, with all candidates, as it is sent.
    pub(super) async fn offer(&self) -> Result<String, MediaError> {
        let template = self.template();
        let offer = timeout(TRANSITION, described(&self.bin)).await;
        let offer = offer.map_err(|_| MediaError::Deadline { template: template.clone(), what: "making the offer" })?;
        offer.map(|text| with_repairs(&polished(&text))).map_err(|reason| unusable("offer", &reason))
    }
}

/// What an answer agrees to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// The kinds of tracks, in the offer's order.
    pub kinds: Vec<Kind>,
    /// SHA-256 of the certificate the remote side will show.
    pub fingerprint: Vec<u8>,
}

impl Agreed {
    fn read(sdp: &SDPMessage) -> Option<Self> {
        let fingerprint = |text: &str| {
            let (hash, digits) = text.split_once(' ')?;
            let bytes = data_encoding::HEXUPPER_PERMISSIVE.decode(digits.trim().replace(':', "").as_bytes()).ok()?;
            (hash.eq_ignore_ascii_case("sha-256") && bytes.len() == 32).then_some(bytes)
        };
        let kind = |media: &str| Kind::ALL.into_iter().find(|kind| kind.label() == media);
        let accepted: Vec<_> = sdp.medias().filter(|media| media.port() != 0).collect();
        let own = accepted.iter().find_map(|media| media.attribute_val("fingerprint").and_then(fingerprint));
        let kinds = accepted
            .iter()
            .filter(|media| media.attribute_val("inactive").is_none())
            .filter_map(|media| media.media().and_then(kind))
            .collect();
        Some(Self { kinds, fingerprint: own.or_else(|| sdp.attribute_val("fingerprint").and_then(fingerprint))? })
    }
}

fn unusable(what: &'static str, reason: &str) -> MediaError {
    MediaError::Negotiation { what, reason: reason.to_owned() }
}

/// An answer within its bounds, that answers each m-line of the offer with one of the same kind.
fn read_answer(text: &str, offer: &gstreamer_sdp::SDPMessageRef) -> Result<SDPMessage, &'static str> {
    if text.len() > MAX_ANSWER {
        return Err("it is too long");
    }
    if text.lines().filter(|line| line.starts_with("a=candidate:")).count() > MAX_CANDIDATES {
        return Err("it has too many candidates");
    }
    let sdp = SDPMessage::parse_buffer(text.as_bytes()).map_err(|_| "it is no SDP")?;
    let kinds = |sdp: &gstreamer_sdp::SDPMessageRef| -> Vec<Option<String>> {
        sdp.medias().map(|media| media.media().map(str::to_owned)).collect()
    };
    if kinds(&sdp) != kinds(offer) {
        return Err("its m-lines are not those of the offer");
    }
    Ok(sdp)
}

fn want(bin: &gst::Element, kind: Kind, formats: &[Format]) {
    let direction = gst_webrtc::WebRTCRTPTransceiverDirection::Recvonly;
    let mut caps = gst::Caps::new_empty();
    if let Some(caps) = caps.get_mut() {
        formats.iter().for_each(|format| caps.append_structure(format.structure(kind)));
    }
    let transceiver: gst_webrtc::WebRTCRTPTransceiver = bin.emit_by_name("add-transceiver", &[&direction, &caps]);
    transceiver.set_property("do-nack", kind == Kind::Video);
}

impl Format {
    pub(super) fn structure(&self, kind: Kind) -> gst::Structure {
        let receive =
            Receive { kind, codec: self.codec.clone(), payload: self.payload, clock_rate: self.clock_rate, twcc: None };
        let mut structure = receive.structure();
        if self.codec == Codec::Opus {
            structure.set("encoding-params", "2");
        }
        self.parameters.iter().for_each(|(name, value)| structure.set(*name, *value));
        structure
    }
}

/// webrtcbin's own description of itself, once all candidates are gathered.
async fn described(bin: &gst::Element) -> Result<String, String> {
    let (gathered, gathering_done) = oneshot::channel();
    notify_gathered(bin, gathered);
    let (promise, offered) = promised();
    bin.emit_by_name::<()>("create-offer", &[&None::<gst::Structure>, &promise]);
    let reply = offered.await.map_err(|_| "no reply")??;
    let offer = reply.and_then(|reply| reply.get::<gst_webrtc::WebRTCSessionDescription>("offer").ok());
    let offer = offer.ok_or("it makes no offer")?;
    let (promise, local_set) = promised();
    bin.emit_by_name::<()>("set-local-description", &[&offer, &promise]);
    local_set.await.map_err(|_| "no reply")??;
    let _ = gathering_done.await;
    let local: Option<gst_webrtc::WebRTCSessionDescription> = bin.property("local-description");
    let text = local.and_then(|local| local.sdp().as_text().ok());
    Ok(text.ok_or("it has no local description")?)
}

/// An offer in the SDK's form: every m-line has a port (webrtcbin's `bundle-only` lines have port 0, which servers take
/// for a refusal), `opus` is in lower case, and lines end in CRLF.
fn polished(offer: &str) -> String {
    let mut text = String::with_capacity(offer.len() + 256);
    for line in offer.lines().filter(|line| !line.is_empty() && *line != "a=bundle-only") {
        let refused =
            ["audio", "video"].iter().find_map(|kind| line.strip_prefix(&format!("m={kind} 0 ")).zip(Some(kind)));
        let line = match refused {
            _ if line.starts_with("a=fingerprint:") => identity::announced(line).unwrap_or_else(|| line.to_owned()),
            Some((rest, kind)) => format!("m={kind} 9 {rest}"),
            None if line.starts_with("a=rtpmap:") => line.replacen("OPUS/", "opus/", 1),
            None => line.to_owned(),
        };
        text.push_str(&line);
        text.push_str("\r\n");
    }
    text
}

/// Payload types that are free for everybody (RFC 3551, 6).
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;

/// An offer with retransmission (RFC 4588) for every payload type that asks for lost packets: webrtcbin 1.22 offers it for
/// the first of a track alone, and the answer may choose another.
fn with_repairs(offer: &str) -> String {
    let number = |text: &str| text.split(' ').next()?.parse::<u8>().ok();
    let of = |start: &'static str| offer.lines().filter_map(move |line| line.strip_prefix(start));
    let mut taken: Vec<u8> = of("a=rtpmap:").filter_map(number).collect();
    let repaired: Vec<u8> = of("a=fmtp:").filter_map(|line| line.split_once(" apt=")?.1.parse().ok()).collect();
    let asked = of("a=rtcp-fb:").filter_map(|line| line.strip_suffix(" nack")?.parse().ok());
    let mut repairs = Vec::new();
    for payload in asked.filter(|payload| !repaired.contains(payload)) {
        let Some(free) = DYNAMIC.into_iter().find(|number| !taken.contains(number)) else { break };
        taken.push(free);
        repairs.push((free, payload));
    }
    let mut text = String::with_capacity(offer.len() + 64 * repairs.len());
    let mut pictures = false;
    for line in offer.lines() {
        if line.starts_with("m=") {
            pictures = line.starts_with("m=video ");
        }
        if pictures && line.starts_with("a=mid:") {
            for (repair, payload) in &repairs {
                text.push_str(&format!("a=rtpmap:{repair} rtx/90000\r\na=fmtp:{repair} apt={payload}\r\n"));
            }
        }
        text.push_str(line);
        if line.starts_with("m=video ") {
            repairs.iter().for_each(|(repair, _)| text.push_str(&format!(" {repair}")));
        }
        text.push_str("\r\n");
    }
    text
}

/// The answer of whoever serves browsers, for the tests of what is done with one.
#[cfg(test)]
fn answer(offer: &str) -> String {
    let taken = |line: &&str| !line.starts_with("a=candidate") && !line.starts_with("o=");
    let lines: Vec<String> = offer.lines().filter(taken).map(str::to_owned).collect();
    let text = lines.join("\r\n").replace("a=recvonly", "a=sendonly").replace("a=setup:actpass", "a=setup:passive");
    format!("{}\r\n", text.replacen("v=0", "v=0\r\no=- 1 2 IN IP4 127.0.0.1", 1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::media::{Catalog, init};

    async fn offer() -> (Peer, String) {
        init().unwrap();
        let launch = Catalog::load(None)
            .unwrap()
            .launch("pull-wcs", |filling| filling.track(Kind::Video).track(Kind::Audio))
            .unwrap();
        let options = PeerOptions { addresses: vec!["127.0.0.1".parse().unwrap()], ports: (0, 0) };
        let name = StreamName::new("s").unwrap();
        let fanout = Fanout::default();
        Peer::offer_to_receive(&Pipelines::default(), launch, &name, &fanout, &Kind::ALL, &options).await.unwrap()
    }

    #[tokio::test]
    async fn the_offer_is_one_a_server_of_browsers_takes() {
        let (peer, offer) = offer().await;
        let media: Vec<&str> = offer.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(
            media,
            ["m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8", "m=video 9 UDP/TLS/RTP/SAVPF 108 102 116 96 97 98 99 100"]
        );
        for line in [
            "a=rtpmap:111 opus/48000/2",
            "a=rtpmap:8 PCMA/8000",
            "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            "a=rtpmap:96 VP8/90000",
            "a=rtcp-fb:108 nack pli",
            "a=fmtp:97 apt=108",
            "a=rtpmap:98 rtx/90000",
            "a=fmtp:98 apt=102",
            "a=fmtp:99 apt=116",
            "a=fmtp:100 apt=96",
            "a=setup:actpass",
        ] {
            assert!(offer.contains(&format!("{line}\r\n")), "{line}: {offer}");
        }
        assert_eq!(offer.matches("a=recvonly\r\n").count(), 2);
        assert!(offer.contains("a=group:BUNDLE audio0 video1") && !offer.contains("bundle-only"), "{offer}");
        assert!(offer.contains("127.0.0.1") && offer.contains("typ host"), "candidates are in it: {offer}");
        peer.stop().await;
    }

    /// An answer that takes these payload types of the pictures.
    fn choosing(offer: &str, payload: u8, repair: u8) -> String {
        let mut text = answer(offer);
        let all = text.lines().find(|line| line.starts_with("m=video")).unwrap().to_owned();
        let (head, numbers) = all.split_at("m=video 9 UDP/TLS/RTP/SAVPF".len());
        let about = |line: &str, number: &str| {
            ["rtpmap", "fmtp", "rtcp-fb"].iter().any(|name| line.starts_with(&format!("a={name}:{number} ")))
        };
        let taken = [payload, repair].map(|number| number.to_string());
        for number in numbers.split_whitespace().filter(|number| !taken.contains(&(*number).to_owned())) {
            let others = text.lines().filter(|line| !about(line, number));
            text = others.map(|line| format!("{line}\r\n")).collect();
        }
        text.replace(&all, &format!("{head} {payload} {repair}"))
    }

    #[tokio::test]
    async fn what_is_lost_is_repaired_in_every_payload_type() {
        for (payload, repair) in [(108, 97), (102, 98), (116, 99), (96, 100)] {
            let (mut peer, offer) = offer().await;
            peer.take_answer(&choosing(&offer, payload, repair)).await.unwrap();
            let bin = peer.bin.downcast_ref::<gst::Bin>().unwrap();
            let receivers = bin.iterate_all_by_element_factory_name("rtprtxreceive");
            let maps: Vec<String> = receivers
                .into_iter()
                .flatten()
                .map(|receiver| receiver.property::<gst::Structure>("payload-type-map").to_string())
                .collect();
            assert!(maps.iter().any(|map| map.contains(&format!("{payload}=(uint){repair}"))), "{payload}: {maps:?}");
            peer.stop().await;
        }
    }

    #[tokio::test]
    async fn an_answer_is_read_within_its_bounds() {
        for (what, bad) in [
            ("m-lines", "hello".to_owned()),
            ("m-lines", "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned()),
            ("too long", "a".repeat(MAX_ANSWER + 1)),
            ("candidates", "a=candidate:1 1 UDP 1 h 1 typ host\n".repeat(MAX_CANDIDATES + 1)),
            ("fingerprint", String::new()),
        ] {
            let (mut peer, offer) = offer().await;
            let bad = match what {
                "fingerprint" => answer(&offer).replace("sha-256", "sha-1"),
                _ => bad,
            };
            let reason = peer.take_answer(&bad).await.map_err(|error| error.to_string());
            assert!(reason.as_ref().is_err_and(|reason| reason.contains(what)), "{what}: {reason:?}");
            peer.stop().await;
        }
        let (mut peer, offer) = offer().await;
        let half = answer(&offer).replace("m=audio 9", "m=audio 0");
        let agreed = peer.take_answer(&half).await.unwrap();
        assert_eq!((agreed.kinds, agreed.fingerprint.len()), (vec![Kind::Video], 32));
        peer.stop().await;
    }
}
