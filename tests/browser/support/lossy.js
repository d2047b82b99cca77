// A line that loses packets: UDP proxies on loopback between a browser and weir.
import { createSocket } from "node:dgram";

/** A socket on loopback, and its port. */
function bound(received) {
  return new Promise((done, failed) => {
    const socket = createSocket("udp4", received);
    socket.on("error", failed);
    socket.bind(0, "127.0.0.1", () => done({ socket, port: socket.address().port }));
  });
}

/** The same numbers in every run, 0 to 1. */
function random(seed) {
  return () => {
    seed = (seed * 1664525 + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
}

/**
 * A line that loses this share of all packets, each way. `through(answer)` gives an SDP answer whose candidates lead
 * through it; `passed` and `lost` count packets, `up` and `down` say which way.
 */
export function lossyLine(share) {
  const next = random(20261121);
  const sockets = [];
  const fronts = new Map();
  const counts = { up: { passed: 0, lost: 0 }, down: { passed: 0, lost: 0 } };
  const carry = (way, send) => {
    if (next() < share) counts[way].lost++;
    else {
      counts[way].passed++;
      send();
    }
  };

  /** The port in front of a port of weir's. Each address of the browser's gets an address of its own behind it. */
  async function front(port) {
    const behind = new Map();
    const open = async (browser) => {
      const back = await bound((packet) => carry("down", () => own.socket.send(packet, browser.port, browser.address)));
      sockets.push(back.socket);
      return back.socket;
    };
    const own = await bound(async (packet, browser) => {
      const key = `${browser.address}:${browser.port}`;
      if (!behind.has(key)) behind.set(key, open(browser));
      const back = await behind.get(key);
      carry("up", () => back.send(packet, port, "127.0.0.1"));
    });
    sockets.push(own.socket);
    return own.port;
  }

  return {
    counts,
    async through(answer) {
      const lines = answer.split("\r\n").map(async (line) => {
        const words = line.split(" ");
        if (!line.startsWith("a=candidate:") || words[2].toUpperCase() !== "UDP") return line;
        const port = Number(words[5]);
        if (!fronts.has(port)) fronts.set(port, front(port));
        words[5] = await fronts.get(port);
        return words.join(" ");
      });
      return (await Promise.all(lines)).join("\r\n");
    },
    stop: () => sockets.forEach((socket) => socket.close()),
  };
}
