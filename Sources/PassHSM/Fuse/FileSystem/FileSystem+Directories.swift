import CLinux
import Glibc
import HSMFuseDoor
import HSMSystem

/// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR and FSYNCDIR.
extension FileSystem {
    func opendir(_ reply: consuming Reply, _ node: UInt64) {
        do throws(Errno) {
            let inode = try inode(node)
            let directory = OpenDirectory(inode, isRoot: inode === root, try openForReading(inode))
            let number = try openDirectories.insert(directory, .directory, of: node)
            streams.use(directory)
            openHandles.add(1)
            // The kernel may keep the listing when only this mount changes the directory.
            let access = Opened.Access.directory(keepsListing: options.cache == .exclusive)
            if !reply.open(Opened(handle: number, access: access)) { closeDirectory(number) }
        } catch { reply.error(error) }
    }

    private func openForReading(_ directory: Inode) throws(Errno) -> Descriptor {
        try directory === root
            ? tree.root.reopen(O_RDONLY | O_DIRECTORY) : open(directory, O_RDONLY | O_DIRECTORY)
    }

    func releasedir(_ reply: consuming Reply, _ number: UInt64) {
        closeDirectory(number)
        reply.done()
    }

    private func closeDirectory(_ number: UInt64) {
        guard let directory = openDirectories.remove(number) else { return }
        openHandles.add(-1)
        streams.end(directory)
    }

    func fsyncdir(_ reply: consuming Reply, _ number: UInt64, dataOnly: Bool) {
        reply.result { () throws(Errno) in
            let lower = try openForReading(openDirectories.find(number).inode)
            if dataOnly { try lower.fdatasync() } else { try lower.fsync() }
        }
    }

    /// READDIR, and with `plus` READDIRPLUS, which gives the kernel a reference to every entry.
    func readdir(_ reply: consuming Reply, _ number: UInt64, size: Int, offset: Int, plus: Bool) {
        let directory: OpenDirectory
        do throws(Errno) { directory = try openDirectories.find(number) } catch { return reply.error(error) }
        var listing = DirectoryListing(size: size)
        var failure: Errno?
        do throws(Errno) {
            let isKept = try directory.entries(from: offset, size: size) { () throws(Errno) in
                try openForReading(directory.inode)
            } _: { lower, entry throws(Errno) in
                if directory.isRoot && isHidden(entry.name, in: NodeID.root.number) { return true }
                return plus ? append(entry, of: lower, to: &listing) : listing.append(entry)
            }
            if isKept { streams.use(directory) }
        } catch { failure = error }
        // The entries that were read before the error are answered. The error comes with the next request.
        if let failure, listing.isEmpty { return reply.error(failure) }
        reply.bytes(listing.bytes)
    }

    /// Looks an entry up and appends it. Returns false when there is no room.
    private func append(
        _ entry: DirectoryReader.Entry, of directory: Descriptor, to listing: inout DirectoryListing
    ) -> Bool {
        // Checked before the lookup, because a reference that is not handed on would have to be taken back.
        guard listing.hasRoom(for: entry.name, plus: true) else { return false }
        if entry.isDotOrDotDot { return listing.append(entry, nil) }
        return listing.append(entry, (try? lookup(entry.name, in: directory))?.entry)
    }
}
