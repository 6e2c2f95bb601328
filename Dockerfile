# A static binary in an empty image, as a user without rights. TestContainer
# reads this file, builds the same content and runs it without a Docker engine.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
# The same source gives the same bytes: no paths, no build id, and the version
# as the only thing that is stamped in. Time zones are inside, for logs.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags timetzdata -ldflags "-s -w -buildid= -X main.version=${VERSION}" -o /smtp2rest ./cmd/smtp2rest
RUN mkdir /empty

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /smtp2rest /smtp2rest
# The queue. Mount a volume here: mail that was accepted must outlive the container.
COPY --from=build --chown=65532:65532 --chmod=700 /empty /var/lib/smtp2rest
VOLUME /var/lib/smtp2rest
# The only place that can be written to: the rest may be read-only.
ENV TMPDIR=/var/lib/smtp2rest
# Whether it makes progress. It needs no shell, and finds the daemon's socket by itself.
HEALTHCHECK --interval=20s --timeout=5s --start-period=5s CMD ["/smtp2rest", "healthcheck"]
USER 65532:65532
ENTRYPOINT ["/smtp2rest"]
CMD ["serve"]
