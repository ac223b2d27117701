/// Programs that compare two files of the mount with the source's, again and again, one of them through a mapping too. They
/// fail at the first difference.
func comparingReaders(_ mirror: Mirror, mapped: String, other: String, rounds: Int) throws -> [Child] {
    let script = """
        for i in $(seq $5); do cmp "$1/$3" "$2/$3" && cmp "$1/$4" "$2/$4" && python3 -c 'import mmap,sys
        with open(sys.argv[1],"rb") as f: m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)
        assert m[:]==open(sys.argv[2],"rb").read()' "$1/$3" "$2/$3" || exit 1; done
        """
    return try (0..<3).map { _ in
        try Child(["bash", "-c", script, "bash", mirror.mount, mirror.source, mapped, other, "\(rounds)"])
    }
}
