package admin

// SocketName is the name of a daemon's socket in its data directory.
const SocketName = "admin.sock"
