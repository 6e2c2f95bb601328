# A static binary in an empty image, as a user without rights.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /smtp2rest ./cmd/smtp2rest
RUN mkdir /empty

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /smtp2rest /smtp2rest
# The queue. Mount a volume here: mail that was accepted must outlive the container.
COPY --from=build --chown=65532:65532 --chmod=700 /empty /var/lib/smtp2rest
VOLUME /var/lib/smtp2rest
USER 65532:65532
ENTRYPOINT ["/smtp2rest"]
CMD ["serve"]
