import Glibc
import HSMCore
import HSMSystem

/// The steps of ``DirectorySource``'s listing, one at a time. The walk has its own stack, for trees of any depth and
/// directories of any size.
///
/// A directory that cannot be opened gives one `unreadable` event. A directory whose names cannot all be read gives an
/// `unreadable` event with its own key, before its `leave`.
struct DirectoryWalk {
    private enum Phase { case start, inside, finished }

    private let source: DirectorySource
    private var stack: DirectoryStack
    /// One for each directory of the stack.
    private var cursors: [DirectoryCursor] = []
    /// The key of the current directory, and the lengths of the keys of the directories above it.
    private var path: [UInt8] = []
    private var pathLengths: [Int] = []
    private var phase = Phase.start
    /// ``DirectoryVersion/isExact(on:)`` of each file system that the walk has met, by device number.
    private var exactness: [dev_t: Bool] = [:]
    /// Events that come before the next name.
    private var pending: [RemoteEvent] = []

    /// - Throws: `FillError` when the top directory cannot be read.
    init(source: DirectorySource) throws(FillError) {
        self.source = source
        let top = try source.openTop()
        do throws(Errno) {
            stack = try DirectoryStack(top: try Descriptor.openDirectory(at: top, [0x2e]))
        } catch {
            throw FillError(remote: error, "opening", Array(source.location.utf8))
        }
    }

    /// - Throws: `FillError` when the walk cannot go on.
    mutating func next() throws(FillError) -> RemoteEvent? {
        while true {
            if !pending.isEmpty { return pending.removeFirst() }
            if Task.isCancelled { throw .cancelledRead }
            switch phase {
            case .start:
                phase = .inside
                cursors.append(DirectoryCursor())
                return .enter(try topEntry())
            case .inside: try step()
            case .finished: return nil
            }
        }
    }

    private func topEntry() throws(FillError) -> RemoteEntry {
        do throws(Errno) {
            let status = try stack.current.stat()
            var metadata = RemoteEntry.Metadata(status)
            try metadata.readAttributes(of: [0x2e], in: stack.current)
            return RemoteEntry(name: [], kind: .directory, metadata: metadata)
        } catch {
            throw FillError(remote: error, "reading the attributes of", Array(source.location.utf8))
        }
    }

    /// Goes on to the next name, or leaves the current directory. Adds at least one event, unless the name is not
    /// reported.
    private mutating func step() throws(FillError) {
        do throws(Errno) {
            if let entry = try cursors[cursors.count - 1].next(in: stack.current) {
                if stack.depth > 0 || entry.name != Self.ownDirectory { visit(entry.name) }
                return
            }
        } catch {
            pending.append(.unreadable(RemoteKey(path), FillError(remote: error, "listing", path)))
        }
        try leave()
    }

    /// The folder with a lower directory's own data, in case the source is a lower directory.
    private static let ownDirectory = Array(".passhsm".utf8)

    private mutating func visit(_ name: [UInt8]) {
        let key = path.isEmpty ? name : path + [0x2f] + name
        do throws(Errno) {
            let status = try stack.current.stat(name)
            guard let kind = try kind(of: name, key, status) else { return }
            var entry = RemoteEntry(name: name, kind: kind, metadata: .init(status))
            if kind != .directory && status.st_nlink > 1 {
                entry.linkIdentity = [UInt64(status.st_dev), UInt64(status.st_ino)]
            }
            // The entry is usable without its attributes; the missing ones are reported.
            do throws(Errno) { try entry.metadata.readAttributes(of: name, in: stack.current) } catch {
                pending.append(.unreadable(RemoteKey(key), FillError(remote: error, "reading the attributes of", key)))
            }
            if case .file(var object) = kind {
                object.digest = entry.metadata.digest
                entry.kind = .file(object)
            }
            if kind == .directory {
                try enter(name, key)
                pending.append(.enter(entry))
            } else {
                pending.append(.entry(entry))
            }
        } catch {
            // A name that was removed after it was listed is not reported.
            if error.rawValue == ENOENT { return }
            pending.append(.unreadable(RemoteKey(key), FillError(remote: error, "reading", key)))
        }
    }

    private mutating func isExact(_ name: [UInt8], _ status: stat) -> Bool {
        if let known = exactness[status.st_dev] { return known }
        guard let place = try? Descriptor.openPlace(at: stack.current, name) else { return false }
        let isExact = DirectoryVersion.isExact(on: place)
        exactness[status.st_dev] = isExact
        return isExact
    }

    private mutating func kind(of name: [UInt8], _ key: [UInt8], _ status: stat) throws(Errno) -> RemoteEntry.Kind? {
        switch status.st_mode & S_IFMT {
        case S_IFREG:
            let version = DirectoryVersion.of(status, isExact: isExact(name, status))
            return .file(RemoteObject(key: RemoteKey(key), version: version, size: status.st_size))
        case S_IFDIR: return .directory
        case S_IFLNK: return .symlink(target: try stack.current.readLink(name))
        case S_IFIFO: return .fifo
        case S_IFSOCK: return .socket
        case S_IFCHR: return .characterDevice(UInt64(status.st_rdev))
        case S_IFBLK: return .blockDevice(UInt64(status.st_rdev))
        default: return nil
        }
    }

    private mutating func enter(_ name: [UInt8], _ key: [UInt8]) throws(Errno) {
        let directory = try Descriptor.openDirectory(at: stack.current, name)
        if let closed = try stack.push(directory, name: name) { cursors[closed].suspend() }
        cursors.append(DirectoryCursor())
        pathLengths.append(path.count)
        path = key
    }

    private mutating func leave() throws(FillError) {
        pending.append(.leave)
        guard stack.depth > 0 else {
            phase = .finished
            return
        }
        do throws(Errno) { try stack.pop() } catch {
            throw FillError.remoteFailed(
                "\(String(decoding: path, as: UTF8.self)) was moved while the tree was listed: \(error.text)")
        }
        cursors.removeLast()
        path.removeSubrange(pathLengths.removeLast()...)
    }
}
