import CLinux
import Glibc
import HSMSystem
import Testing

extension MountTests.ConformanceDifferences {
    @Test("FIEMAP answers EOPNOTSUPP, for complete and for cold files")
    func extents() throws {
        try onMount { mirror throws in
            for name in ["f", "known"] {
                let file = try File.open(mirror.at(name))
                var argument = [UInt8](repeating: 0, count: 4096)
                argument[8..<16] = [255, 255, 255, 255, 0, 0, 0, 0]
                #expect(passhsm_ioctl(file.raw, 0xc020_660b, &argument) == -1 && errno == EOPNOTSUPP)
            }
        }
    }

    @Test("A file of the mount cannot be swapped to; one of the lower directory can", arguments: [true, false])
    func swap(isPassthrough: Bool) throws {
        try onMount(isPassthrough ? [] : ["--no-passthrough"]) { mirror throws in
            try shell("head -c 1M /dev/zero >swap; chmod 600 swap; mkswap -q swap", in: mirror.mount)
            func enable(_ path: String) throws -> Output { try run(["env", "LC_ALL=C", "swapon", path]) }
            let refused = try enable(mirror.at("swap"))
            #expect(refused.code != 0 && refused.err.contains("Invalid argument"), "\(refused)")
            let taken = try enable(mirror.tree + "/swap")
            #expect(taken.code == 0, "\(taken)")
            try shell("swapoff \"$1\"", [mirror.tree + "/swap"])
        }
    }

    @Test(
        "A mount inside the lower directory is not crossed: the directory beneath is shown", arguments: [true, false])
    func submount(isBefore: Bool) throws {
        try withMirror(apart: true, mounting: nil) { mirror throws in
            try shell("mkdir sub; echo beneath >sub/beneath", in: mirror.source)
        } _: { mirror throws in
            let inside = mirror.tree + "/sub"
            func cover() throws { try shell("mount -t tmpfs none \"$1\"; echo above >\"$1/above\"", [inside]) }
            defer { umount2(inside, Int32(MNT_DETACH)) }
            if isBefore { try cover() }
            try mirror.start()
            if !isBefore { try cover() }
            #expect(
                try shell(
                    "ls sub; cat sub/beneath; echo new >sub/new; stat -c %d . sub | uniq | wc -l", in: mirror.mount)
                    == "beneath\nbeneath\n1\n")
            umount2(inside, 0)
            #expect(try shell("ls; cat new", in: inside) == "beneath\nnew\nnew\n")
        }
    }

    @Test("OFD and POSIX locks hold among the users of the mount only, flock against those of the lower directory too")
    func locks() throws {
        try onMount { mirror throws in
            let files = try [mirror.at("f"), mirror.tree + "/f", mirror.at("f")].map { try File.open($0, O_RDWR) }
            func lock(_ file: Descriptor) -> Int32 {
                var lock = flock()
                lock.l_type = Int16(F_WRLCK)
                return fcntl(file.raw, 37, &lock)  // F_OFD_SETLK
            }
            #expect(lock(files[0]) == 0 && lock(files[1]) == 0)
            #expect(lock(files[2]) == -1 && errno == EAGAIN)
            #expect(passhsm_flock(files[0].raw, LOCK_EX | LOCK_NB) == 0)
            for other in files[1...] {
                #expect(passhsm_flock(other.raw, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK)
            }
        }
    }
}
