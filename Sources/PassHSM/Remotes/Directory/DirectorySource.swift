import Glibc
import HSMCore
import HSMSystem

/// A local directory, or one that the kernel mounts from elsewhere, as the remote tier.
///
/// A key is a path below the top directory: names in bytes, joined by `/`. A version is a ``DirectoryVersion``.
/// Symlinks are never followed. The methods block in system calls, so they have to run on a ``BlockingPool``.
package final class DirectorySource: RemoteStore {
    package let location: String
    package let fetchUnit = 1 << 20
    private let top: SourceTop

    /// Opens nothing, because the source may be away.
    ///
    /// - Parameters:
    ///   - path: the top directory. Only in this path are symlinks followed.
    ///   - location: the value of ``location``.
    ///   - identity: the file system that the top directory has to be on; nil for any.
    package init(path: [UInt8], location: String, identity: SourceIdentity? = nil) {
        self.location = location
        top = SourceTop(path: path, identity: identity)
    }

    /// Opens the top directory with O_PATH.
    ///
    /// - Throws: an outage when the source is away.
    func openTop() throws(FillError) -> Descriptor { try top.open() }

    package func agrees(_ recorded: RemoteObject, with found: RemoteObject, isMoved: Bool) -> Bool {
        DirectoryVersion.agrees(recorded, with: found, isMoved: isMoved)
    }

    // MARK: Reading

    /// How many bytes are read and passed on at once.
    private static let pieceSize = 1 << 20

    package func read(
        _ object: RemoteObject, range: Range<Int>,
        deliver: (UnsafeRawBufferPointer) throws(FillError) -> Void
    ) async throws(FillError) {
        let file = try openFile(object.key)
        let isExact = DirectoryVersion.isExact(on: file)
        try expectVersion(of: object, in: file, isExact: isExact)
        guard !range.isEmpty else { return }
        let size = min(range.count, Self.pieceSize)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
        defer { buffer.deallocate() }
        var offset = range.lowerBound
        while offset < range.upperBound {
            if Task.isCancelled { throw .cancelledRead }
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(size, range.upperBound - offset)])
            let count = try attempt("reading", object.key.bytes) { () throws(Errno) in
                try Failpoint.reach("source.read")
                return try file.read(into: piece, at: offset)
            }
            // A writer changes the times before it changes a byte. Unchanged times now prove that the whole piece
            // belongs to the version.
            try expectVersion(of: object, in: file, isExact: isExact)
            guard count == piece.count else {
                throw FillError.remoteChanged("\(object.key) ends at \(offset + count), before \(range.upperBound)")
            }
            try deliver(UnsafeRawBufferPointer(piece))
            offset += count
        }
    }

    package func current(
        _ key: RemoteKey
    ) async throws(FillError) -> (object: RemoteObject, modified: RemoteEntry.Time) {
        let file = try openFile(key)
        let status = try attempt("stat of", key.bytes) { () throws(Errno) in try file.stat() }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw FillError.remoteChanged("\(key) is no longer a regular file")
        }
        let modified = RemoteEntry.Time(status.st_mtim)
        let digest = RemoteDigest(modified: modified) { name in
            try? ExtendedAttributes.value(name, of: file)
        }
        let version = DirectoryVersion.of(status, isExact: DirectoryVersion.isExact(on: file))
        return (RemoteObject(key: key, version: version, size: status.st_size, digest: digest), modified)
    }

    private func expectVersion(of object: RemoteObject, in file: Descriptor, isExact: Bool) throws(FillError) {
        let status = try attempt("stat of", object.key.bytes) { () throws(Errno) in try file.stat() }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw FillError.remoteChanged("\(object.key) is no longer a regular file")
        }
        let version = DirectoryVersion.of(status, isExact: isExact)
        let found = RemoteObject(key: object.key, version: version, size: status.st_size)
        guard DirectoryVersion.agrees(object, with: found) else {
            throw FillError.remoteChanged(
                "\(object.key) was changed in the source since it was imported (a chmod or a new link counts too): "
                    + "unmount, and run the import again")
        }
    }

    /// Opens the file of `key` component by component, so that no symlink is followed and no path is too long.
    private func openFile(_ key: RemoteKey) throws(FillError) -> Descriptor {
        let names = key.bytes.split(separator: 0x2f, omittingEmptySubsequences: false).map(Array.init)
        for name in names where name.isEmpty || name == [0x2e] || name == [0x2e, 0x2e] || name.contains(0) {
            throw FillError.remoteFailed("\(key) is not a path below \(location)")
        }
        let top = try self.top.open()
        do throws(Errno) { return try open(names, below: top) } catch {
            throw failure(error, "opening", key.bytes)
        }
    }

    private func open(_ names: [[UInt8]], below top: Descriptor) throws(Errno) -> Descriptor {
        var directory = top
        for name in names.dropLast() {
            directory = try Descriptor.openPlaceOfDirectory(at: directory, name)
        }
        // O_NONBLOCK: a FIFO that has replaced the file must not block the fetch.
        return try Descriptor.openQuietly(at: directory, names[names.count - 1], O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    }

    private func attempt<Result>(
        _ action: String, _ path: [UInt8], _ body: () throws(Errno) -> Result
    ) throws(FillError) -> Result {
        do throws(Errno) { return try body() } catch {
            throw failure(error, action, path)
        }
    }

    private func failure(_ error: Errno, _ action: String, _ path: [UInt8]) -> FillError {
        if let outage = top.outage(error) { return outage }
        // A symlink (O_NOFOLLOW) or a socket has replaced the file.
        if error.rawValue == ELOOP || error.rawValue == ENXIO {
            return FillError.remoteChanged("\(String(decoding: path, as: UTF8.self)) is no longer a regular file")
        }
        return FillError(remote: error, action, path)
    }

    // MARK: Listing

    package func list(_ body: (RemoteEvent) throws -> Void) async throws {
        var walk = try DirectoryWalk(source: self)
        while let event = try walk.next() { try body(event) }
    }
}
