# weir in a container: built on Debian, run on Debian's slim image as an ordinary user.
#
#   docker build -t weir .
#   docker run -p 8081:8081 --stop-timeout 20 weir
#
# This file is also the one list of the packages weir needs: ./dev reads the lists below and installs the same
# packages on a developer's machine. One package a line, each with its reason.

# The two images have to be of the same Debian release, and that release needs GStreamer 1.22 or newer.
ARG RUST=rust:1-slim-bookworm
ARG BASE=debian:12-slim

# To build weir:
#   gcc libc6-dev                        the linker Rust calls, and what it links
#   pkg-config                           finds GStreamer for the bindings
#   libgstreamer*-dev                    GStreamer's core and its base libraries (appsrc and appsink)
ARG BUILD_PACKAGES="\
    gcc \
    libc6-dev \
    pkg-config \
    libgstreamer1.0-dev \
    libgstreamer-plugins-base1.0-dev \
    libgstreamer-plugins-bad1.0-dev"

# To run weir:
#   libgstreamer1.0-0                    GStreamer itself
#   gstreamer1.0-plugins-base            appsrc, appsink, opusenc, opusdec, vorbisenc
#   gstreamer1.0-plugins-good            flvdemux, aacparse, mp4mux, webmmux, RTP payloaders, pngenc
#   gstreamer1.0-plugins-bad             rtmp2src, h264parse, webrtcbin, voaacenc, openh264enc
#   gstreamer1.0-nice                    ICE for webrtcbin
#   gstreamer1.0-libav                   avdec_aac, avdec_h264 (what browsers do not play, snapshots); GPL in effect
#   gstreamer1.0-tools                   gst-launch-1.0: the shell command that weir shows for a pipeline runs here, too
#   glib-networking ca-certificates      rtmps
#   graphviz                             a pipeline's graph.svg (without it weir answers 501 and names this package)
ARG RUNTIME_PACKAGES="\
    libgstreamer1.0-0 \
    gstreamer1.0-plugins-base \
    gstreamer1.0-plugins-good \
    gstreamer1.0-plugins-bad \
    gstreamer1.0-nice \
    gstreamer1.0-libav \
    gstreamer1.0-tools \
    glib-networking \
    ca-certificates \
    graphviz"

# GPL, and needed by nothing that weir does by itself: gstreamer1.0-plugins-ugly (x264enc), which is taken for browsers'
# renditions where it is installed, in place of openh264enc:
#   docker build --build-arg GPL_PACKAGES="gstreamer1.0-plugins-ugly" -t weir .
ARG GPL_PACKAGES=""


FROM ${RUST} AS build
ARG BUILD_PACKAGES
RUN apt-get update \
 && apt-get install -y --no-install-recommends ${BUILD_PACKAGES} \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY conf conf
COPY pipelines pipelines
COPY web web
# The caches keep the crates and what was compiled of them from one build to the next (BuildKit, or buildah).
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --bin weir \
 && cp target/release/weir /usr/local/bin/weir


FROM ${BASE}
ARG RUNTIME_PACKAGES
ARG GPL_PACKAGES
RUN apt-get update \
 && apt-get install -y --no-install-recommends ${RUNTIME_PACKAGES} ${GPL_PACKAGES} \
 && rm -rf /var/lib/apt/lists/*
# The number is fixed, so that a folder mounted from the host can be given to it: chown 10001:10001.
RUN groupadd --gid 10001 weir \
 && useradd --uid 10001 --gid weir --no-log-init --create-home --home-dir /var/lib/weir --shell /usr/sbin/nologin weir \
 && install -d -o weir -g weir /var/lib/weir/records /var/lib/weir/data
COPY --from=build /usr/local/bin/weir /usr/local/bin/weir
COPY conf /etc/weir
# Each thread that takes memory would have a heap of its own, up to eight a core, and what streams that have ended leave
# free in one is no use to another.
ENV MALLOC_ARENA_MAX=2
USER 10001:10001
# The working directory is where the defaults `records` and `data` come to lie.
WORKDIR /var/lib/weir
# Every template finds its elements in this image, and GStreamer's registry of plugins is written before the first start.
RUN weir check
VOLUME ["/var/lib/weir/records", "/var/lib/weir/data", "/etc/weir"]
# REST and pages, browsers' signalling (each as it is and with TLS), RTMP, the command line over SSH, viewers' media;
# publishers' media
EXPOSE 8081 8444 8080 8443 1935 2001 31001/udp 31002-32000/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["weir", "health", "--data", "/var/lib/weir/data"]
ENTRYPOINT ["weir"]
CMD ["serve", "--conf", "/etc/weir/flashphoner.properties", "--data", "/var/lib/weir/data"]
