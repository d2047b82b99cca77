// A server that is none: it speaks WCS's WebSocket protocol through Playwright and answers offers from a page of its own.
// What it is for: our client and our pages are judged without weir's WebRTC, and weir's WebRTC without our client.

/** What runs in the answering page: a peer for each offer, a moving picture and a tone for those who play. */
function answering() {
  const peers = new Map();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [320, 240];
  let turn = 0;
  setInterval(() => {
    const paint = canvas.getContext("2d");
    paint.fillStyle = `hsl(${(turn += 7)} 80% 50%)`;
    paint.fillRect(0, 0, 320, 240);
  }, 40);
  const sounds = () => {
    const audio = new AudioContext();
    const tone = audio.createOscillator();
    const out = audio.createMediaStreamDestination();
    tone.connect(out);
    tone.start();
    return out.stream.getTracks();
  };
  window.answer = async (id, sdp, sends) => {
    const peer = new RTCPeerConnection();
    peers.set(id, peer);
    await peer.setRemoteDescription({ type: "offer", sdp });
    const media = sends ? new MediaStream([...canvas.captureStream(25).getTracks(), ...sounds()]) : null;
    for (const track of media?.getTracks() ?? []) peer.addTrack(track, media);
    await peer.setLocalDescription();
    while (peer.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 10));
    return peer.localDescription.sdp;
  };
  window.leave = (id) => peers.get(id)?.close();
  window.connected = (id) => peers.get(id)?.connectionState === "connected";
}

/**
 * Stands behind every WebSocket that `page` opens. `names` says what happens to a stream's name: a text is the reason it
 * fails with. `heard` has every message, in order; `say` sends one to all.
 */
export async function fakeServer(browser, page, names = {}) {
  const context = await browser.newContext();
  const answerer = await context.newPage();
  await answerer.goto("about:blank");
  await answerer.evaluate(answering);
  const heard = [];
  const sockets = [];
  const recorded = new Set();
  await page.routeWebSocket(/.*/, (socket) => {
    sockets.push(socket);
    const send = (message, ...data) => socket.send(JSON.stringify({ message, data }));
    const status = (asked, status, more) => send("notifyStreamStatusEvent", { ...asked, sdp: undefined, status, ...more });
    // A page that leaves with its test may still say something then.
    socket.onMessage((text) => answered(text).catch((error) => {
      if (!answerer.isClosed()) throw error;
    }));
    const answered = async (text) => {
      const { message, data } = JSON.parse(text);
      heard.push({ message, payload: data[0] });
      const asked = data[0];
      switch (message) {
        case "connection":
          send("getUserData", { authToken: "token", appKey: asked.appKey });
          return send("ping", null);
        case "publishStream":
        case "playStream": {
          if (asked.record) recorded.add(asked.mediaSessionId);
          if (names[asked.name]) return status(asked, "FAILED", { info: names[asked.name] });
          send("setRemoteSDP", asked.mediaSessionId, await answerer.evaluate(
            ([id, sdp, sends]) => window.answer(id, sdp, sends), [asked.mediaSessionId, asked.sdp, !asked.published]));
          await answerer.waitForFunction((id) => window.connected(id), asked.mediaSessionId);
          return status(asked, asked.published ? "PUBLISHING" : "PLAYING");
        }
        case "unPublishStream":
        case "stopStream":
          await answerer.evaluate((id) => window.leave(id), asked.mediaSessionId);
          return status(asked, asked.published ? "UNPUBLISHED" : "STOPPED", recorded.has(asked.mediaSessionId) ? { recordName: "film.mp4" } : {});
        default:
      }
    };
  });
  return {
    heard,
    of: (message) => heard.filter((one) => one.message === message).map((one) => one.payload),
    say: (message, ...data) => sockets.forEach((socket) => socket.send(JSON.stringify({ message, data }))),
    drop: () => Promise.all(sockets.map((socket) => socket.close())),
    close: () => context.close(),
  };
}
