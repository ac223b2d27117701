import HSMStore
import HSMSystem
import Synchronization

/// A file that events are about, or with which something is still to be done. There is never more than one for a file.
final class Node: Sendable {
    let handle: FileHandle
    /// Serialises what decides on events of the file, and what changes its record; held over blocking I/O on the lower file
    /// system.
    let transition = Lock()
    /// A leaf lock.
    let state = Mutex(State())

    struct State {
        /// Events and work that are being dealt with; guarded by the table's shard too.
        var users = 0
        /// How many there have been.
        var uses = 0
        /// Set while the file is incomplete and in use.
        var file: IncompleteFile?
        /// It is read by ranges: who reads on is known by the object of the file, and nobody tells when it is closed. So it
        /// stays in use until nobody has come for ten sweeps.
        var isReadByRanges = false
        /// ``uses`` at the last sweep, and how many sweeps have found the same.
        var usesSwept = 0
        var idleSweeps = 0
        /// Set when the file is dirty only because it was opened for writing.
        var dirtyMark: DirtyMark?

        var isNeeded: Bool { users > 0 || file != nil || dirtyMark != nil }
    }

    init(_ handle: FileHandle) { self.handle = handle }
}

/// The known files, by file handle.
final class NodeTable: Sendable {
    private static let shardCount = 16
    private let shards: [Shard] = (0..<shardCount).map { _ in Shard() }

    private final class Shard: Sendable {
        /// Nothing but `Node.state` is taken while it is held.
        let nodes = Mutex<[FileHandle: Node]>([:])
    }

    private func shard(_ handle: FileHandle) -> Shard {
        shards[Int(UInt(bitPattern: handle.hashValue) % UInt(Self.shardCount))]
    }

    var count: Int { shards.reduce(0) { $0 + $1.nodes.withLock(\.count) } }

    /// The node of `handle` with one more user, to be ended by ``release(_:)``.
    func use(_ handle: FileHandle) -> Node {
        shard(handle).nodes.withLock { nodes in
            let node = nodes[handle] ?? Node(handle)
            nodes[handle] = node
            node.state.withLock { state in
                state.users += 1
                state.uses += 1
            }
            return node
        }
    }

    func find(_ handle: FileHandle) -> Node? { shard(handle).nodes.withLock { $0[handle] } }

    /// One user less.
    func release(_ node: Node) {
        shard(node.handle).nodes.withLock { nodes in
            node.state.withLock { $0.users -= 1 }
            drop(node, &nodes)
        }
    }

    /// Forgets the node when nothing needs it any more.
    func forget(_ node: Node) { shard(node.handle).nodes.withLock { drop(node, &$0) } }

    private func drop(_ node: Node, _ nodes: inout [FileHandle: Node]) {
        if nodes[node.handle] === node, !node.state.withLock(\.isNeeded) { nodes[node.handle] = nil }
    }

    /// Those of which `filter` is true.
    func all(where filter: (Node) -> Bool) -> [Node] {
        shards.flatMap { $0.nodes.withLock { $0.values.filter(filter) } }
    }
}
