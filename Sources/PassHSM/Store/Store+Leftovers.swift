import CLinux
import Glibc
import HSMSystem

/// Removal of maps, keys and temporary files that no file needs any more.
extension Store {
    /// Removes what a crash left: residency maps and keys of files that are gone, keys of records that have format 2 by
    /// now, and unfinished new files.
    func removeLeftovers() {
        for name in Self.names(in: partial) where isGone(name) { Self.remove(name, from: partial) }
        for name in Self.names(in: temporary) {
            do throws(Errno) { try endRefetch(name) } catch {
                log.error("a file whose refetch was broken off stays as it is: \(error.text)")
                continue
            }
            Self.remove(name, from: temporary)
        }
        guard let keys else { return }
        let needless = Self.names(in: keys).filter { !needsKey($0) }
        // The record that does not need its key any more may not be on disk yet.
        guard !needless.isEmpty, (try? tree.directory.original.syncFileSystem()) != nil else { return }
        for name in needless { Self.remove(name, from: keys) }
    }

    private static func names(in folder: Descriptor) -> [[UInt8]] {
        ((try? DirectoryReader.names(in: folder)) ?? []).map { Array($0.dropLast()) }
    }

    private static func remove(_ name: [UInt8], from folder: Descriptor) { try? folder.unlink(name) }

    /// Whether the file whose handle `name` is called after is gone, or `name` is no handle at all.
    private func isGone(_ name: [UInt8]) -> Bool {
        guard let handle = FileHandle(name: String(decoding: name, as: UTF8.self)) else { return true }
        guard tree.opensHandles else { return false }
        do throws(Errno) { _ = try tree.open(handle, PASSHSM_O_PATH) } catch { return error.rawValue == ESTALE }
        return false
    }

    private func needsKey(_ name: [UInt8]) -> Bool {
        if isGone(name) { return false }
        guard let handle = FileHandle(name: String(decoding: name, as: UTF8.self)), tree.opensHandles,
            let file = try? tree.open(handle, PASSHSM_O_PATH), let found = try? believedValue(of: file)
        else { return true }
        if case .keyFile = found.0.objectLocation { return true }
        return false
    }
}
